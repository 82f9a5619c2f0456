# Stand-in for prom/prometheus: Debian's, with the paths and default arguments of the official image.
FROM localhost/expunge-stand-in/debian
RUN ln -s /usr/bin/prometheus /usr/bin/promtool /bin/ 2>/dev/null || true
RUN mkdir -p /prometheus && chown nobody:nogroup /prometheus
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090
ENTRYPOINT ["/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
