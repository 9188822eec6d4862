# Compressed sizes and similarity of diversity_texts.txt. Run in this folder:
# Rscript diversity_whole_text.R > diversity_whole_text.txt
suppressPackageStartupMessages(library(vegan))
lines <- readLines("diversity_texts.txt")
cat("text\tbytes\tcompressed\n")
for (i in seq_along(lines)) {
  raw <- charToRaw(lines[i])
  cat(sprintf("%d\t%d\t%d\n", i - 1, length(raw), length(memCompress(raw, "gzip"))))
}
# Mean Jaccard similarity of all pairs of texts, on the presence of words.
words <- lapply(lines, function(line) unique(strsplit(line, " ")[[1]]))
present <- t(sapply(words, function(w) as.numeric(sort(unique(unlist(words))) %in% w)))
cat(sprintf("all\t%.15g\t\n", mean(1 - vegdist(present, method = "jaccard", binary = TRUE))))
