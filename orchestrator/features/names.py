"""What the files of features are called: in the folder of all, and in that of each transcoder."""

INDEX = "index.html"
ABOUT, LATENTS = "features.json", "latents.jsonl"
