# The service's image: docker build -t headwater:0.2.0 .
#
# Both stages have the same base, because a virtual environment works only with the Python that made it.
# Any base with Python 3.11+ will do. Pin it by digest (…@sha256:…) if builds must be repeatable to the byte.
ARG BASE=python:3.11-slim-bookworm
# The first stage also needs the modules venv and pip, which Debian's python3 lacks.
ARG BUILD_BASE=${BASE}

# ── build: what only the build needs stays in this stage, such as pip
FROM ${BUILD_BASE} AS build

# For builds without a network: wheels in a mounted folder, and PIP_NO_INDEX=1.
ARG PIP_FIND_LINKS
ARG PIP_NO_INDEX
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# Two environments, so that the copied one does not contain pip.
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv

# Packages before code: this layer changes only with their list. Only wheels: building from source would need a compiler, and
# would give a different image on another day.
# With OpenTelemetry's traces: --build-arg REQUIREMENTS=requirements-otel.txt
ARG REQUIREMENTS=requirements.txt
COPY requirements.txt requirements-otel.txt /src/
RUN /opt/pip/bin/pip --python /opt/venv/bin/python install --only-binary :all: --requirement /src/${REQUIREMENTS}
# Remove what nothing imports: the packages' tests, and sources for compilers and type checkers.
RUN cd /opt/venv/lib/python3*/site-packages \
    && rm -rf gevent/tests gevent/testing greenlet/tests zope/interface/tests zope/interface/*/tests zope/event/tests* \
    && find . -type f \( -name '*.c' -o -name '*.h' -o -name '*.cpp' -o -name '*.hpp' -o -name '*.py[xi]' -o -name '*.pxd' \) \
        -delete

COPY sse /app/sse
COPY health /app/health
COPY headwater /app/headwater
COPY app.py wsgi.py settings.py gunicorn.conf.py LICENSE /app/
# The command, for `kubectl exec … -- headwater config`: from the same folders, by the links in headwater/.
RUN echo /app > "$(echo /opt/venv/lib/python3*/site-packages)/app.pth" \
    && printf '%s\n' '#!/opt/venv/bin/python3' 'import sys' 'from headwater.command import main' 'sys.exit(main())' \
        > /opt/venv/bin/headwater \
    && chmod 755 /opt/venv/bin/headwater
# Compiled here, because the root file system is read-only later. Python need not compare the compiled files with the
# source, which no longer changes.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /app \
    && mkdir -p /layout && mkdir -m 0770 /layout/data

# ── the image
FROM ${BASE}

ARG VERSION=0.2.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="headwater" \
      org.opencontainers.image.description="Server-Sent Events for Kubernetes" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# For a log in a file. Group 0 may write it, too, because some platforms run containers as a user of their own in that
# group.
COPY --from=build --chown=10001:0 /layout/ /

# HOST: nobody can reach a container's loopback. Publishing stays closed until a key is set.
# SSE_LOG: a file, unless the environment says otherwise; mount a volume at /data to keep it.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    HOST=0.0.0.0 \
    LOG_FORMAT=json \
    SSE_LOG=sqlite:////data/headwater.db

WORKDIR /app
# A number, so that Kubernetes can check that it is not root (runAsNonRoot); without a name, shell or home directory.
USER 10001:10001
EXPOSE 8080 8081
# gunicorn's graceful stop: streams are told to reconnect, and end one by one.
STOPSIGNAL SIGTERM
# The list form, without a shell that would not pass the signal on. gunicorn's master is PID 1: it passes SIGTERM on to its
# workers and reaps every child (its SIGCHLD handler waits for any pid), so no tini is needed.
# No HEALTHCHECK: Kubernetes ignores it, and asks /startupz, /healthz and /readyz on port 8081 instead.
CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
