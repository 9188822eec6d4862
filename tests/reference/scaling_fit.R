# Witness for stats/scaling_fit.py: least squares of the power law by nls, with bounds (algorithm "port").
# Repeat: Rscript tests/reference/scaling_fit.R > tests/reference/scaling_fit.txt
say <- function(name, value) cat(name, "\t", sprintf("%.12g", value), "\n", sep = "")
fit <- function(case, x, y) {
  u <- x / x[1]
  best <- NULL
  for (b0 in c(0.1, 0.3, 1, 3)) {                       # several starts, the best kept
    f <- try(nls(e ~ floor + a * u^(-b), data = data.frame(e = 1 - y, u = u),
                 start = list(floor = 0.1, a = 0.5, b = b0), algorithm = "port",
                 lower = c(0, 0, 0.01), upper = c(1, 10, 10),
                 control = nls.control(tol = 1e-12, maxiter = 500, scaleOffset = 1)), silent = TRUE)
    if (!inherits(f, "try-error") && (is.null(best) || deviance(f) < deviance(best))) best <- f
  }
  for (name in names(coef(best))) say(paste0(case, "_", name), coef(best)[[name]])
  say(paste0(case, "_rss"), deviance(best))
}
x <- c(300, 600, 1200, 2400, 4800, 9600)
fit("exact", x, 0.75 - 0.5 * (x / 300)^(-0.6))
fit("noisy", x, 0.75 - 0.5 * (x / 300)^(-0.6) + 0.02 * sin(7 * seq_along(x)))
fit("no_floor", x, 1 - 0.8 * (x / 300)^(-0.15) - 0.03 * seq_along(x)^0.3 + 0.01 * cos(3 * seq_along(x)))
fit("five", x[1:5], c(0.18, 0.27, 0.35, 0.39, 0.41))
