FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends mosquitto mosquitto-clients \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o mosquitto -g mosquitto -m 0700 /mosquitto/data
COPY docker/mosquitto.conf /etc/mosquitto/acm.conf
USER mosquitto
VOLUME /mosquitto/data
EXPOSE 1883
HEALTHCHECK --interval=5s --timeout=5s --start-period=10s \
    CMD ["mosquitto_sub", "-h", "127.0.0.1", "-t", "$SYS/broker/uptime", "-C", "1", "-W", "3"]
CMD ["mosquitto", "-c", "/etc/mosquitto/acm.conf"]
