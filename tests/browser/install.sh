#!/usr/bin/env bash
# Install what the browser tests need: Chromium, Playwright for Python, and axe-core from npm, each once.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
axe=axe-core@4.14.1
if ! command -v chromium >/dev/null; then
  sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $sudo apt-get update -qq
  $sudo apt-get install -y -qq --no-install-recommends chromium
fi
"$python" -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt playwright
[ -f .venv/axe-core/package.json ] || {
  mkdir -p .venv/axe-core
  npm pack --silent --pack-destination .venv/axe-core "$axe" >/dev/null
  tar xzf .venv/axe-core/axe-core-*.tgz -C .venv/axe-core --strip-components 1
}
