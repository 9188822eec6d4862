# Witness for stats/across_models.py p_over_looks with two groups: a path that stops at look j with nominal p.
# Repeat: Rscript tests/reference/stagewise_p.R > tests/reference/stagewise_p.txt
suppressMessages(library(mvtnorm))
set.seed(1)
spend <- function(t) 0.05 * (1 - exp(4 * t)) / (1 - exp(4))
for (k in list(c(10, 20, 40), c(4, 8, 16), c(5, 20))) {
  t <- k / max(k); spent <- spend(t)
  R <- outer(t, t, function(a, b) sqrt(pmin(a, b) / pmax(a, b)))
  stay <- function(z) if (length(z) == 1) 1 - 2 * pnorm(-z) else
    pmvnorm(-z, z, corr = R[seq_along(z), seq_along(z)], algorithm = GenzBretz(abseps = 1e-9, maxpts = 5e6))[1]
  z <- c()
  for (j in seq_along(k)) {
    level <- uniroot(function(x) 1 - stay(c(z, x)) - spent[j], c(0.5, 6), tol = 1e-8)$root
    for (share in c(0.9, 0.5, 0.1)) {
      p <- share * 2 * pnorm(-level)
      cat(paste(k, collapse = ","), k[j], sprintf("%.12g %.8g", p, 1 - stay(c(z, -qnorm(p / 2)))), "\n")
    }
    z <- c(z, level)
  }
}
cat("#", R.version.string, "mvtnorm", as.character(packageVersion("mvtnorm")), "\n")
