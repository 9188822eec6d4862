# Witness for stats/paired_seeds.py hierarchical_bootstrap: seeds, then items, drawn with replacement.
# Repeat: Rscript tests/reference/paired_bootstrap.R > tests/reference/paired_bootstrap.txt
# Data: sine values, 5 seeds x 7 items; draws by a linear congruential generator, so the test can make both.
S <- 5; I <- 7; B <- 400
d <- outer(1:S, 1:I, function(s, i) 0.1 + 0.3 * sin(3 * s) + 0.5 * sin(1.7 * s * i))
x <- 42
draw <- function(n, size) sapply(seq_len(n), function(i) {
  x <<- (16807 * x) %% 2147483647
  floor(size * x / 2147483647) + 1
})
for (shared in c(TRUE, FALSE)) {
  x <- 42
  seeds <- matrix(draw(B * S, S), nrow = B, byrow = TRUE)
  means <- numeric(B)
  for (b in 1:B) {
    if (shared) {
      long <- d[seeds[b, ], draw(I, I)]
    } else {
      items <- matrix(draw(S * I, I), nrow = S, byrow = TRUE)
      long <- t(sapply(1:S, function(s) d[seeds[b, s], items[s, ]]))
    }
    means[b] <- mean(long)
  }
  cat(if (shared) "shared" else "own", sprintf("%.12g", c(mean(d), quantile(means, c(0.025, 0.975), type = 7))), "\n")
}
cat("#", R.version.string, "\n")
