# docker build -t rankwise .
# docker run -p 127.0.0.1:8000:8000 -e RANKWISE_TOKEN -v ./runs:/models:ro rankwise mine=/models/mine
FROM python:3.12-slim
COPY pyproject.toml constraints.txt hatch_build.py README.md LICENSE /build/
COPY src /build/src
RUN pip install --no-cache-dir --constraint /build/constraints.txt '/build[serve]' && rm -r /build \
    && useradd --create-home --uid 10001 rankwise
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["rankwise", "serve", "--host", "0.0.0.0", "--models-folder", "/models"]
