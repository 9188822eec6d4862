# Entropies and n-gram shares of diversity_texts.txt. Run in this folder:
# Rscript diversity_ngrams.R > diversity_ngrams.txt
# vegan's diversity() is the outside entropy; the Miller-Madow term is added to it in bits.
suppressPackageStartupMessages(library(vegan))
lines <- readLines("diversity_texts.txt")
cat("text\tshannon_word\tshannon_char\tdistinct_2\trepetition_ratio\n")
for (i in seq_along(lines)) {
  tokens <- strsplit(lines[i], " ")[[1]]
  n <- length(tokens)
  m <- length(unique(tokens))
  word <- diversity(as.vector(table(tokens)), base = 2) + (m - 1) / (2 * n) * log2(exp(1))
  char <- diversity(as.vector(table(strsplit(lines[i], "")[[1]])), base = 2)
  two <- paste(tokens[-n], tokens[-1])
  three <- paste(tokens[1:(n - 2)], tokens[2:(n - 1)], tokens[3:n])
  rep <- if (n < 50) NA else 1 - length(unique(three)) / length(three)
  cat(sprintf("%d\t%.15g\t%.15g\t%.15g\t%.15g\n", i - 1, word, char, length(unique(two)) / length(two), rep))
}
