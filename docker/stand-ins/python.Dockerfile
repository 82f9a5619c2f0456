# Stand-in for python:3.11-slim: Debian's Python 3.11 with every pinned wheel inside; its pip looks nowhere else.
FROM localhost/expunge-stand-in/debian
COPY . /opt/wheels
RUN printf '[global]\nno-index = true\nfind-links = /opt/wheels\nbreak-system-packages = true\n' > /etc/pip.conf
CMD ["python3"]
