# Witness for stats/sequential.py: spending by its formula, and what the nominal levels spend, by mvtnorm.
# Repeat: Rscript tests/reference/sequential_spending.R > tests/reference/sequential_spending.txt
suppressMessages(library(mvtnorm))
set.seed(1)
f <- function(x) sprintf("%.8g", x)
spend <- function(t, alpha, gamma) alpha * (1 - exp(-gamma * t)) / (1 - exp(-gamma))
designs <- list(laptop = c(10, 20, 40), smoke = c(4, 8, 16), thirds = c(1, 2, 3), two = c(5, 20))
for (name in names(designs)) {
  k <- designs[[name]]; t <- k / max(k)
  spent <- spend(t, 0.05, -4)
  R <- outer(t, t, function(a, b) sqrt(pmin(a, b) / pmax(a, b)))
  stay <- function(z) if (length(z) == 1) 1 - 2 * pnorm(-z) else
    pmvnorm(-z, z, corr = R[seq_along(z), seq_along(z)], algorithm = GenzBretz(abseps = 1e-9, maxpts = 5e6))[1]
  z <- c()
  for (j in seq_along(k)) z[j] <- uniroot(function(x) 1 - stay(c(z, x)) - spent[j], c(0.5, 6), tol = 1e-8)$root
  cat(name, "spent", f(spent), "\n")
  cat(name, "levels", f(2 * pnorm(-z)), "\n")
}
# Two-dimensional statistic (omnibus of three sources), four million Brownian paths, looks 10, 20, 40
n <- 4e6; t <- c(0.25, 0.5, 1)
levels <- c(0.0016029302, 0.0047758321, 0.0470614454)
x <- 0; y <- 0; hit <- matrix(FALSE, n, 3); last <- 0
for (j in 1:3) {
  x <- x + rnorm(n) * sqrt(t[j] - last); y <- y + rnorm(n) * sqrt(t[j] - last); last <- t[j]
  hit[, j] <- pchisq((x^2 + y^2) / t[j], 2, lower.tail = FALSE) < levels[j]
}
cat("plane levels", levels, "\n")
cat("plane spent", f(c(mean(hit[, 1]), mean(hit[, 1] | hit[, 2]), mean(hit[, 1] | hit[, 2] | hit[, 3]))), "\n")
cat("#", R.version.string, "mvtnorm", as.character(packageVersion("mvtnorm")), "\n")
