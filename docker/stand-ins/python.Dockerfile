# Stand-in for python:3.11-slim: Debian's Python 3.11 with every pinned wheel inside; its pip looks nowhere else.
FROM localhost/expunge-stand-in/debian
COPY . /wheelhouse
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheelhouse PIP_BREAK_SYSTEM_PACKAGES=1
CMD ["python3"]
