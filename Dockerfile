# One image for everything: the MLflow server, the Optuna dashboard, and the harness itself (with CUDA, for a GPU).
FROM python:3.11.13-slim-bookworm

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY harness harness
COPY experiments experiments
# The compiler makes the fast convolutions for CPUs. It stays (0.2 of 6 GB): the harness itself compiles nothing when it
# trains, but Triton, behind torch.compile, builds what launches its kernels with it, and your training may call that.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && pip install --no-cache-dir --disable-pip-version-check -c constraints.txt '.[ray]' \
    && rm -rf /var/lib/apt/lists/*

# A new volume takes its owner from the folder in the image.
RUN useradd --create-home --uid 1000 harness \
    && mkdir /store /artifacts /images \
    && chown harness:harness /store /artifacts /images
USER harness
WORKDIR /store
ENV HARNESS_STORE=/store HARNESS_CACHE=/images

CMD ["harness", "--help"]
