# Stand-in for postgres:16: Debian's PostgreSQL, with the variables of the official image that the compose file uses.
FROM localhost/expunge-stand-in/debian
COPY --chmod=0755 postgres-entrypoint.sh /usr/local/bin/entrypoint.sh
RUN ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/ && mkdir -p /var/lib/postgresql/data /var/run/postgresql \
    && chown -R postgres:postgres /var/lib/postgresql /var/run/postgresql
VOLUME /var/lib/postgresql/data
EXPOSE 5432
STOPSIGNAL SIGINT
ENTRYPOINT ["entrypoint.sh"]
CMD ["postgres"]
