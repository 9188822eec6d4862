# Singular values of BA by LAPACK through R, and what is read off them: ranks, Gavish-Donoho, quantiles, Spearman.
# Run in this folder: Rscript spectra_svd.R > spectra_svd.txt
# Factors are printed, so that the tests read the same numbers. Cases: full rank, one zero direction, r above
# the shorter side, falling spectrum (A and B ill-conditioned), zero B.
set.seed(5)
show <- function(...) cat(paste(..., sep = "\t"), "\n", sep = "")
digits <- function(x) paste(sprintf("%.17g", x), collapse = " ")
cases <- list(
  full = list(a = matrix(rnorm(4 * 9), 4), b = matrix(rnorm(7 * 4), 7)),
  flat = list(a = rbind(diag(3), 0) %*% matrix(rnorm(3 * 6), 3), b = matrix(rnorm(5 * 4), 5)),
  wide = list(a = matrix(rnorm(6 * 8), 6), b = matrix(rnorm(3 * 6), 3)),
  steep = list(a = diag(10^-(0:7)) %*% matrix(rnorm(8 * 12), 8), b = matrix(rnorm(10 * 8), 10) %*% diag(2^-(0:7))),
  zero = list(a = matrix(rnorm(2 * 4), 2), b = matrix(0, 5, 2))
)
for (name in names(cases)) {
  A <- cases[[name]]$a; B <- cases[[name]]$b
  show(name, "a", paste(dim(A), collapse = " "), digits(t(A)))  # row by row
  show(name, "b", paste(dim(B), collapse = " "), digits(t(B)))
  d <- svd(B %*% A)$d[1:min(nrow(A), ncol(A), nrow(B))]
  show(name, "sigma", digits(d))
  show(name, "frobenius", digits(norm(B %*% A, "F")))
  show(name, "spectral", digits(norm(B %*% A, "2")))
  if (name == "zero") next
  p <- d / sum(d); p <- p[p > 0]
  show(name, "stable_rank", digits(norm(B %*% A, "F")^2 / norm(B %*% A, "2")^2))
  show(name, "effective_rank", digits(exp(-sum(p * log(p)))))
  for (share in c(.90, .95, .99)) show(name, paste0("energy_rank_", 100 * share), which(cumsum(d^2) / sum(d^2) >= share)[1])
  # Distance of (i, d_i) from the line through the first and the last point, by the cross product.
  i <- seq_along(d); n <- length(d)
  away <- abs((n - 1) * (d - d[1]) - (d[n] - d[1]) * (i - 1)) / sqrt((n - 1)^2 + (d[n] - d[1])^2)
  show(name, "knee", which.max(away))
}
# Gavish & Donoho 2014: the density of the Marchenko-Pastur law integrated as it stands, its median by uniroot.
for (beta in c(.05, .1, .2, .25, .5, .75, 1)) {
  lower <- (1 - sqrt(beta))^2; upper <- (1 + sqrt(beta))^2
  density <- function(x) sqrt(pmax((upper - x) * (x - lower), 0)) / (2 * pi * beta * x)
  above <- function(x) integrate(density, x, upper, rel.tol = 1e-11, subdivisions = 2000)$value
  median <- uniroot(function(x) above(x) - .5, c(lower + 1e-3 * (upper - lower), upper), tol = 1e-13)$root
  lambda <- sqrt(2 * (beta + 1) + 8 * beta / ((beta + 1) + sqrt(beta^2 + 14 * beta + 1)))
  show("coefficient", sprintf("%g", beta), digits(lambda), digits(lambda / sqrt(median)))
}
x <- c(4, 1, 7, 2, 9, 6, 3, 8, 5, 10); y <- c(2, 1, 8, 8, 16, 4, 1, 8, 2, 16)
show("spearman", digits(x), digits(y), digits(cor(x, y, method = "spearman")))
z <- c(4, 1, 7, 2.5, 9, 6, 3, 8, 5, 12)
show("quantiles", digits(z), digits(quantile(z, c(.5, .9), type = 7)))
