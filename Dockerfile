FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bot bot
RUN python -m venv /opt/bulkhead \
    && /opt/bulkhead/bin/pip install --no-cache-dir . \
    && /opt/bulkhead/bin/pip uninstall --yes pip

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 10001 bulkhead && install --directory --owner bulkhead /data
COPY --from=build /opt/bulkhead /opt/bulkhead
ENV PATH=/opt/bulkhead/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    BOT_MODE=demo \
    BOT_DATA_DIR=/data
USER 10001
WORKDIR /home/bulkhead
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["python", "-m", "bot.main", "status", "--healthy"]
CMD ["python", "-m", "bot.main", "run"]
