// One picture, then a stream of three frames: node detect.js ADDRESS PICTURE FOLDER-OF-PROTOS...
"use strict";
const fs = require("node:fs");
const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const [address, picture, ...includeDirs] = process.argv.slice(2);
const readable = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const definition = protoLoader.loadSync("vedette/v1/detection_service.proto", { ...readable, includeDirs });
const { DetectionService } = grpc.loadPackageDefinition(definition).vedette.v1;
const client = new DetectionService(address, grpc.credentials.createInsecure(), {
  "grpc.max_receive_message_length": -1, // an answer with many masks exceeds the default of 4 MiB
});

const image = { encoded: { data: fs.readFileSync(picture) } };
const show = (prefix, { detections, findings }) => {
  for (const { class_name, score, box } of detections) {
    const edges = [box.x0, box.y0, box.x1, box.y1].map((edge) => edge.toFixed(1));
    console.log(`${prefix}${class_name} ${score.toFixed(4)} ${edges.join(" ")}`);
  }
  for (const { remedy } of findings) console.log(prefix + remedy);
};
const fail = (error) => {
  console.error(error.details);
  process.exitCode = 1;
};

const stream = () => {
  const call = client.StreamDetect();
  call.on("data", (event) => {
    if (event.answer) show(`frame ${event.answer.frame_id}: `, event.answer.answer);
    if (event.dropped) console.log(`frame ${event.dropped.frame_id}: ${event.dropped.reason}`);
    if (event.error) console.log(`frame ${event.error.frame_id}: ${event.error.status.message}`);
  });
  call.on("error", fail);
  call.write({ config: { drop_policy: "DROP_POLICY_LOSSLESS", stream_id: "node" } });
  for (const frame_id of [1, 2, 3]) call.write({ frame: { frame_id, image } });
  call.end();
};

client.Detect({ image }, { deadline: Date.now() + 30_000 }, (error, response) => {
  if (error) return fail(error);
  show("", response.answer);
  stream();
});
