# The server with its API, and acm; the volume holds the ledger. Fill build/wheels first: `make wheels`.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --user-group --no-create-home --shell /usr/sbin/nologin acm \
    && install -d -o acm -g acm -m 0700 /var/lib/acm
COPY build/wheels /wheels
RUN python3 -m venv /opt/acm \
    && /opt/acm/bin/pip install --compile --no-cache-dir --no-index --find-links /wheels --require-hashes -r /wheels/server-requirements.txt \
    && /opt/acm/bin/pip install --compile --no-cache-dir --no-index --no-deps /wheels/agent_command_manager-*.whl \
    && rm -rf /wheels
ENV PATH=/opt/acm/bin:$PATH ACM_LEDGER=sqlite:////var/lib/acm/ledger.db
USER acm
VOLUME /var/lib/acm
# Its main loop touches the file while it is connected to the broker.
ENV ACM_HEALTH_FILE=/tmp/acm-health
HEALTHCHECK --interval=5s --timeout=10s --start-period=20s \
    CMD ["sh", "-c", "test -n \"$(find /tmp/acm-health -newermt '30 seconds ago')\""]
CMD ["acm", "server"]
