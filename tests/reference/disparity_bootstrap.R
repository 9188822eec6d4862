# Documents resampled with given counts: expanded percentiles of a mean, a gap and a ratio, by base R and boot.
# Run in this folder: Rscript disparity_bootstrap.R > disparity_bootstrap.txt
# Draw k takes document 1 + floor(8 x_k / m) with x_{k+1} = 16807 x_k mod m, m = 2^31 - 1, x_0 = 42: 2000 x 8 draws.
library(boot)
out <- function(name, value) cat(sprintf("%s\t%.15g\n", name, value))
D <- 8; R <- 2000; m <- 2147483647; x <- 42
draws <- numeric(R * D)
for (k in seq_along(draws)) { x <- (16807 * x) %% m; draws[k] <- 1 + floor(D * x / m) }
counts <- t(apply(matrix(draws, nrow = R, byrow = TRUE), 1, tabulate, nbins = D))
out("counts_row_1_document_1", counts[1, 1]); out("counts_sum_column_3", sum(counts[, 3]))
n <- c(3, 1, 4, 2, 5, 2, 3, 4)                                # sentences a document
low <- c(7.1, 3.3, 9.8, 4.1, 16.2, 5.9, 6.6, 12.4)            # totals of the low-resource change
high <- c(3.9, 1.2, 5.1, 2.9, 6.8, 2.2, 3.1, 5.5)
statistic <- function(w) {
  a <- sum(w * low) / sum(w * n); b <- sum(w * high) / sum(w * n)
  c(mean = a, gap = a - b, ratio = a / b)
}
observed <- statistic(rep(1, D)); replicates <- t(apply(counts, 1, statistic))
level <- pnorm(-sqrt(D / (D - 1)) * qt(0.975, D - 1))
out("level", level)
for (name in names(observed)) {
  out(paste0(name, "_estimate"), observed[[name]])
  found <- quantile(replicates[, name], c(level, 1 - level), type = 6, names = FALSE)
  out(paste0(name, "_low"), found[1]); out(paste0(name, "_high"), found[2])
  made <- structure(list(t0 = observed[[name]], t = replicates[, name, drop = FALSE], R = R), class = "boot")
  ci <- boot.ci(made, conf = 1 - 2 * level, type = "perc")$percent
  out(paste0(name, "_boot_low"), ci[4]); out(paste0(name, "_boot_high"), ci[5])
}
# Cochran's standard error of a ratio of cluster totals (survey::svymean's, without finite correction).
e <- low - n * observed[["mean"]]
out("mean_se", sqrt(D / (D - 1) * sum(e^2)) / sum(n))
# Legacy columns.
before <- c(en = 20.5, de = 25.2, sw = 31, yo = 44.4); after <- c(en = 22.1, de = 26, sw = 60.7, yo = 58.9)
percent <- 100 * (after - before) / before
out("legacy_ratio", mean(percent[3:4]) / mean(percent[1:2]))
out("legacy_variance_before", var(before)); out("legacy_variance_after", var(after))
out("legacy_gap_nats", mean(log(after / before)[3:4]) - mean(log(after / before)[1:2]))
# Spearman.
r <- c(1.2, 3.4, 0.3, 2.2, 2.0, 1.9); k <- c(5, 9, 2, 7, 8, 3)
out("spearman", cor(r, k, method = "spearman"))
# Holm over a family of which one member is undefined and stays in it as p = 1.
out("holm_1", p.adjust(c(0.004, 0.02, 1), "holm")[1]); out("holm_2", p.adjust(c(0.004, 0.02, 1), "holm")[2])
