"""What is measured, each as a plain function of keypoints, matches and ground truth."""
