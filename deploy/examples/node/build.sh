#!/bin/sh
# Installs what detect.js needs, as the lock has it. With --prefix, npm would not read its global configuration.
set -eu
cd "$(dirname "$0")"
npm ci --ignore-scripts --no-audit --no-fund
