// One picture: detect ADDRESS PICTURE
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	pb "example.com/vedette/v1"
)

func main() {
	picture, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	size := grpc.MaxCallRecvMsgSize(math.MaxInt32) // an answer with many masks exceeds the default of 4 MiB
	conn, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithDefaultCallOptions(size))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	encoded := &pb.Image_Encoded{Encoded: &pb.EncodedImage{Data: picture}}
	response, err := pb.NewDetectionServiceClient(conn).Detect(ctx, &pb.DetectRequest{Image: &pb.Image{Content: encoded}})
	if err != nil {
		log.Fatal(status.Convert(err).Message())
	}
	for _, found := range response.Answer.Detections {
		box := found.Box
		fmt.Printf("%s %.4f %.1f %.1f %.1f %.1f\n", found.ClassName, found.Score, box.X0, box.Y0, box.X1, box.Y1)
	}
	for _, finding := range response.Answer.Findings {
		fmt.Println(finding.Remedy)
	}
}
