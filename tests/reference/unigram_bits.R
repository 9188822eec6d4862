# Unigram bits of 12 sentences of 9 tokens, as a mixture: lambda * relative frequency + (1 - lambda) / V with
# lambda = N / (N + T). Run in this folder: Rscript unigram_bits.R > unigram_bits.txt
V <- 50
fit <- ((1:200)^2) %% 37
held <- (3 * (0:107) + (0:107) %/% 7) %% V
relative <- as.vector(table(factor(fit, levels = 0:(V - 1)))) / length(fit)
lambda <- length(fit) / (length(fit) + length(unique(fit)))
p <- lambda * relative + (1 - lambda) / V
cat("sentence\tbits\n")
for (i in 1:12) cat(sprintf("%d\t%.15g\n", i - 1, sum(-log2(p[held[(9 * i - 8):(9 * i)] + 1]))))
