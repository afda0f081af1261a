# Two stages: the first builds a virtual environment, the second carries it without pip's caches and the sources.
FROM python:3.12-slim AS build

# Which torch goes in. Empty: the one that PyPI offers, which on x86-64 Linux brings several gigabytes of CUDA libraries.
# It runs on a CPU all the same. For the small CPU build, give the address of torch's own index of CPU builds:
#   docker build --build-arg TORCH_INDEX_URL=… -t sluice .
ARG TORCH_INDEX_URL=""

RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY worker ./worker
# The wheel carries the policies too (pyproject.toml, force-include).
COPY policies ./policies
# An extra index beside PyPI, not the only one: torch's index has few other packages. pip looks at both and takes the higher
# version that constraints.txt allows, so name only an index that you trust; of two equal torch versions, "+cpu" is higher.
RUN pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} .


FROM python:3.12-slim

# A number, so that Kubernetes can check runAsNonRoot; a passwd entry too, because torch asks for the user's name.
# The cache folder exists here with this owner so that a fresh volume mounted on it is writable.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin sluice \
    && install --directory --owner=10001 --group=10001 /var/cache/huggingface

COPY --from=build /opt/venv /opt/venv
WORKDIR /app
COPY policies ./policies

# 0.0.0.0: inside a container 127.0.0.1 is out of Prometheus' reach. The port carries metrics and health only; publish it
# with care all the same.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/var/cache/huggingface \
    SLUICE_POLICIES=/app/policies \
    SLUICE_METRICS_HOST=0.0.0.0

USER 10001:10001
EXPOSE 9108

# Python, because the slim image has no curl; an empty ProxyHandler, because http_proxy would send 127.0.0.1 to the proxy.
# Any answer but 2xx raises and so exits 1. Change the port here too if SLUICE_METRICS_PORT is changed.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open('http://127.0.0.1:9108/livez', timeout=3)"]

# Exec form: signals reach the worker itself, which then ends its batch before it leaves.
ENTRYPOINT ["sluice"]
CMD ["work"]
