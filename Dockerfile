# Three stages: a virtual environment, the model (or an empty folder), and an image that carries both without pip and sources.
#
# Build arguments:
#   TORCH_INDEX_URL  which torch. Empty: the one that PyPI has, which brings its CUDA libraries along and needs nothing but the
#                    host's driver, so the base image is the same for both. The address of torch's own index of CPU builds
#                    (its installation page shows it): the small image, without CUDA.
#   MODEL            empty: downloaded at the first start, into the volume at /var/cache/huggingface. A hub id, or `builtin`:
#                    baked in, and then nothing is asked of the hub.
#   MODEL_REVISION   branch, tag or commit of MODEL; a commit makes two builds alike.
#   REVISION         the commit that is built, for the label.
#
# Size: the base image and 1,070 MB (`du -sm` of an environment that the same lines made with torch 2.13.0+cpu, Python 3.11),
# 600 MB of which are torch's libraries and 126 MB transformers; a baked ViT-B/32 adds its checkpoint. With CUDA: not measured.
ARG PYTHON=3.12.12-slim-bookworm
ARG MODEL=""

FROM python:${PYTHON} AS build

ARG TORCH_INDEX_URL=""

# pip stays outside the environment: the image installs nothing.
RUN python -m venv --without-pip /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY worker ./worker
# The wheel carries the policies too (pyproject.toml, force-include).
COPY policies ./policies
# An extra index beside PyPI, not the only one: torch's index has few other packages. pip looks at both and takes the higher
# version that constraints.txt allows, so name only an index that you trust; of two equal torch versions, "+cpu" is higher.
# torch's own tests and C++ headers are 145 MB that nothing here reads.
RUN /usr/local/bin/pip --python /opt/venv/bin/python install --no-cache-dir --constraint constraints.txt \
        ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} '.[s3]' \
    && rm -r /opt/venv/lib/python3*/site-packages/torch/test /opt/venv/lib/python3*/site-packages/torch/include


FROM build AS model

ARG MODEL
ARG MODEL_REVISION=""
# The worker's own way to load a checkpoint, so that one that it would refuse ends the build. Without MODEL it loads the
# packaged one, which shows that what was installed works.
RUN install --directory /opt/huggingface \
    && HF_HOME=/opt/huggingface python -c "import sys; from worker.encoder.checkpoint import load_checkpoint as load; \
print(load(sys.argv[1] or 'builtin', sys.argv[2] or None).revision)" "$MODEL" "$MODEL_REVISION"


FROM python:${PYTHON}

ARG MODEL
ARG MODEL_REVISION=""
ARG REVISION=""
# A Dockerfile has no if: this is the folder of a baked model, or nothing.
ARG BAKED=${MODEL:+/opt/huggingface}

LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="Content moderation as a stream: RQ workers score uploads with CLIP against policies in plain words" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"

# A number, so that Kubernetes can check runAsNonRoot; a passwd entry too, because torch asks for the user's name.
# The cache folder exists here with this owner so that a fresh volume mounted on it is writable.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app --shell /usr/sbin/nologin sluice \
    && install --directory --owner=10001 --group=10001 /var/cache/huggingface

COPY --from=build /opt/venv /opt/venv
COPY --from=model /opt/huggingface /opt/huggingface
WORKDIR /app
COPY policies ./policies

# 0.0.0.0: inside a container 127.0.0.1 is out of Prometheus' reach. The port carries metrics and health only; publish it
# with care all the same. What is empty here counts as not set.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    HF_HOME=${BAKED:-/var/cache/huggingface} \
    HF_HUB_OFFLINE=${MODEL:+1} \
    SLUICE_MODEL=${MODEL} \
    SLUICE_MODEL_REVISION=${MODEL_REVISION} \
    SLUICE_POLICIES=/app/policies \
    SLUICE_METRICS_HOST=0.0.0.0

USER 10001:10001
EXPOSE 9108

# Nothing is written but under /tmp and, without a baked model, /var/cache/huggingface: give those a tmpfs and a volume, and
# the rest may be read-only.

# Python, because the slim image has no curl; an empty ProxyHandler, because http_proxy would send 127.0.0.1 to the proxy.
# Any answer but 2xx raises and so exits 1. `sluice deliver` answers there too.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os; from urllib.request import ProxyHandler, build_opener; build_opener(ProxyHandler({})).open(f\"http://127.0.0.1:{os.environ.get('SLUICE_METRICS_PORT') or 9108}/livez\", timeout=3)"]

# Exec form: signals reach the worker itself, which then ends its batch before it leaves.
ENTRYPOINT ["sluice"]
CMD ["work"]
