#!/bin/sh
# Makes build/cpp/detect: build.sh FOLDER-OF-PROTOS...
set -eu
protos=$(cd "$1" && echo vedette/v1/*.proto)
mkdir -p build/cpp
protoc $(printf -- '--proto_path=%s ' "$@") --cpp_out=build/cpp --grpc_out=build/cpp \
  --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" $protos google/rpc/status.proto
g++ -std=c++17 -Ibuild/cpp "$(dirname "$0")/detect.cc" $(find build/cpp -name '*.cc') \
  $(pkg-config --cflags --libs grpc++ protobuf) -o build/cpp/detect
