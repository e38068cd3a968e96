#!/bin/sh
# Makes the classes in build/java: build.sh FOLDER-OF-PROTOS...
set -eu
protos=$(cd "$1" && echo vedette/v1/*.proto)
mkdir -p build/java
protoc $(printf -- '--proto_path=%s ' "$@") --java_out=build/java --grpc-java_out=build/java \
  --plugin=protoc-gen-grpc-java="$(command -v grpc_java_plugin)" $protos google/rpc/status.proto
javac -nowarn -cp '/usr/share/java/*' -d build/java "$(dirname "$0")/Detect.java" $(find build/java -name '*.java')
