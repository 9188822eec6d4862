# Tests of seeds against U(0, 1). Run in this folder: Rscript seed_distribution_tests.R > seed_distribution_tests.txt
suppressPackageStartupMessages({library(goftest); library(tseries)})
seeds <- read.table("seed_distribution_seeds.txt", col.names = c("name", "seed"))
units <- split((seeds$seed + 0.5) / 2^32, seeds$name)
line <- function(name, test, statistic, p) cat(sprintf("%s\t%s\t%.15g\t%.15g\n", name, test, statistic, p))
cat("name\ttest\tstatistic\tp\n")
for (name in c("fair", "biased", "second")) {
  u <- units[[name]]
  ks <- ks.test(u, "punif", exact = TRUE)
  line(name, "ks", ks$statistic, ks$p.value)
  ad <- ad.test(u, "punif")
  line(name, "anderson_darling", ad$statistic, ad$p.value)
  for (bins in c(16, 64, 256)) {
    counts <- table(cut(u, seq(0, 1, length.out = bins + 1)))
    chi <- suppressWarnings(chisq.test(counts))
    line(name, paste0("chi_square_", bins), chi$statistic, chi$p.value)
  }
  runs <- runs.test(factor(u > 0.5))
  line(name, "runs", runs$statistic, runs$p.value)
  # acf() without demeaning gives sum x_t x_(t+k) / sum x_t^2; ours has 12 / (n - k) for its denominator.
  n <- length(u)
  a <- acf(u - 0.5, lag.max = 10, demean = FALSE, plot = FALSE)$acf
  for (k in c(1, 10)) {
    r <- a[k + 1] * sum((u - 0.5)^2) * 12 / (n - k)
    line(name, paste0("autocorrelation_lag_", k), r, 2 * pnorm(-abs(r * sqrt(n - k))))
  }
  s <- seeds$seed[seeds$name == name]
  for (bit in c(0, 17, 31)) {
    ones <- sum(floor(s / 2^bit) %% 2)
    line(name, paste0("bit_", bit), ones / n, binom.test(ones, n)$p.value)
  }
}
for (pair in list(c("fair", "biased"), c("fair", "second"))) {
  two <- ks.test(units[[pair[1]]], units[[pair[2]]], exact = TRUE)
  line(paste(pair, collapse = "-"), "two_sample_ks", two$statistic, two$p.value)
}
# Anderson-Darling tail probabilities over a grid, for small and large n.
for (n in c(8, 50, 1000)) for (z in c(0.1, 0.3, 0.8, 1.5, 2.492, 3.857, 6, 9))
  line(paste0("n", n), "ad_tail", z, pAD(z, n = n, lower.tail = FALSE))
# The examples of the docstrings.
three <- c(0.1, 0.4, 0.7)
line("example", "ks", ks.test(three, "punif", exact = TRUE)$statistic, ks.test(three, "punif", exact = TRUE)$p.value)
line("example", "anderson_darling", ad.test(three, "punif")$statistic, ad.test(three, "punif")$p.value)
two <- ks.test(c(0.1, 0.2, 0.3), c(0.15, 0.6, 0.7, 0.8), exact = TRUE)
line("example", "two_sample_ks", two$statistic, two$p.value)
k <- 0:32
line("example", "total_variation", sum(choose(32, k) * abs(0.55^k * 0.45^(32 - k) - 2^-32)) / 2, NA)
chi <- chisq.test(c(rep(6, 5), 4, rep(3, 10)))
line("example", "chi_square", chi$statistic, chi$p.value)
