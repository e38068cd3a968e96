// One picture: detect ADDRESS PICTURE
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "vedette/v1/detection_service.grpc.pb.h"

int main(int argc, char** argv) {
  if (argc != 3) return std::fputs("usage: detect ADDRESS PICTURE\n", stderr), 2;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);  // an answer with many masks exceeds the default of 4 MiB
  auto channel = grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments);
  auto stub = vedette::v1::DetectionService::NewStub(channel);

  std::ifstream file(argv[2], std::ios::binary);
  vedette::v1::DetectRequest request;
  request.mutable_image()->mutable_encoded()->set_data(std::string(std::istreambuf_iterator<char>(file), {}));

  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  vedette::v1::DetectResponse response;
  grpc::Status status = stub->Detect(&context, request, &response);
  if (!status.ok()) return std::fprintf(stderr, "%s\n", status.error_message().c_str()), 1;
  for (const auto& found : response.answer().detections()) {
    const auto& box = found.box();
    std::printf("%s %.4f %.1f %.1f %.1f %.1f\n", found.class_name().c_str(), found.score(), box.x0(), box.y0(),
                box.x1(), box.y1());
  }
  for (const auto& finding : response.answer().findings()) std::puts(finding.remedy().c_str());
}
