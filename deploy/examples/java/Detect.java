// One picture: java Detect ADDRESS PICTURE
import com.google.protobuf.ByteString;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Locale;
import java.util.concurrent.TimeUnit;
import vedette.v1.DetectionServiceGrpc;
import vedette.v1.DetectionServiceOuterClass.DetectRequest;
import vedette.v1.ImageOuterClass.EncodedImage;
import vedette.v1.ImageOuterClass.Image;

public final class Detect {
  public static void main(String[] arguments) throws Exception {
    byte[] file = Files.readAllBytes(Path.of(arguments[1]));
    var encoded = EncodedImage.newBuilder().setData(ByteString.copyFrom(file));
    var request = DetectRequest.newBuilder().setImage(Image.newBuilder().setEncoded(encoded)).build();
    ManagedChannel channel = ManagedChannelBuilder.forTarget(arguments[0])
        .usePlaintext()
        .maxInboundMessageSize(Integer.MAX_VALUE) // an answer with many masks exceeds the default of 4 MiB
        .build();
    try {
      var stub = DetectionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(30, TimeUnit.SECONDS);
      var answer = stub.detect(request).getAnswer();
      for (var found : answer.getDetectionsList()) {
        var box = found.getBox();
        System.out.printf(Locale.ROOT, "%s %.4f %.1f %.1f %.1f %.1f%n",
            found.getClassName(), found.getScore(), box.getX0(), box.getY0(), box.getX1(), box.getY1());
      }
      answer.getFindingsList().forEach(finding -> System.out.println(finding.getRemedy()));
    } catch (StatusRuntimeException error) {
      System.err.println(error.getStatus().getDescription());
      System.exit(1);
    } finally {
      channel.shutdownNow();
    }
  }
}
