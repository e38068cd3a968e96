#!/bin/sh
# Makes build/go/detect, without Go modules: build.sh FOLDER-OF-PROTOS...
set -eu
protos=$(cd "$1" && echo vedette/v1/*.proto)
packages=$(for proto in $protos; do printf -- '--%s_opt=M%s=example.com/vedette/v1 ' go "$proto" go-grpc "$proto"; done)
mkdir -p build/go/src
protoc $(printf -- '--proto_path=%s ' "$@") --go_out=build/go/src --go-grpc_out=build/go/src $packages $protos
GO111MODULE=off GOPATH="$PWD/build/go:/usr/share/gocode" \
  go build -tags debian -o build/go/detect "$(dirname "$0")"/*.go
