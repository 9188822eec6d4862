# Witness for stats/scaling_fit.py scaling_fit: the law of the data and of each resample, and the percentiles.
# Repeat: Rscript tests/reference/scaling_intervals.R > tests/reference/scaling_intervals.txt
# Data: sine values, 6 sizes x 5 seeds x 7 lemmas of 1 to 4 items; draws by a linear congruential generator,
# first all of seeds, then all of lemmas. The test makes both again.
say <- function(...) cat(paste(..., sep = "_"))
value <- function(x) cat("\t", sprintf("%.12g", x), "\n", sep = "")
S <- 5; L <- 7; R <- 400
n <- 1 + (0:(L - 1)) %% 4
x <- c(300, 600, 1200, 2400, 4800, 9600); u <- x / x[1]
state <- 42
draw <- function(n, size) sapply(seq_len(n), function(i) {
  state <<- (16807 * state) %% 2147483647
  floor(size * state / 2147483647) + 1
})
seeds <- matrix(draw(R * S, S), nrow = R, byrow = TRUE)
lemmas <- matrix(draw(R * L, L), nrow = R, byrow = TRUE)

# One curve. nls "port" keeps the bounds, from several starts; then a coefficient that lies inside its bounds
# is refined by nls's Gauss-Newton and one at its bound is put in as a number. Where no law is better than a
# level, a is 0; b, which then says nothing, counts as the least.
least <- c(floor = 0, a = 0, b = 0.01); most <- c(floor = 1, a = 10, b = 10)
nls_of <- function(law, e, start, tol, ...) suppressWarnings(try(silent = TRUE, nls(
  law, data = list(e = e, u = u), start = start, ...,
  control = nls.control(tol = tol, maxiter = 500, scaleOffset = 1e-10, warnOnly = TRUE))))
fit <- function(e) {
  starts <- lapply(c(0.03, 0.3, 1, 3, 9), function(b) nls_of(
    e ~ floor + a * u^(-b), e, list(floor = 0.1, a = 0.5, b = b), 1e-12,
    algorithm = "port", lower = least, upper = most))
  starts <- starts[!sapply(starts, inherits, "try-error")]
  level <- lm(e ~ 1)
  if (length(starts)) best <- starts[[which.min(sapply(starts, deviance))]]
  if (!length(starts) || deviance(best) >= deviance(level) * (1 - 1e-9))
    return(c(floor = coef(level)[[1]], a = 0, b = 0.01))
  p <- coef(best)
  low <- p <= least + 1e-6; high <- p >= most - 1e-4; free <- names(p)[!low & !high]
  p[low] <- least[low]; p[high] <- most[high]
  law <- do.call(substitute, list(quote(e ~ floor + a * u^(-b)), as.list(p[low | high])))
  finer <- nls_of(as.formula(law), e, as.list(p[free]), 1e-9)
  stopifnot(deviance(finer) <= deviance(best) * (1 + 1e-7))
  p[free] <- coef(finer)
  p
}

study <- function(case, law, noise) {
  share <- lapply(seq_along(x), function(k) outer(1:S, 1:L, function(s, l)
    law[k] + 0.03 * sin(3 * s) + 0.05 * sin(5 * l) + noise * sin(2.1 * s * l + 7 * k)))
  stopifnot(all(unlist(share) >= 0), all(unlist(share) <= 1))
  error <- function(rows, cols)
    1 - sapply(share, function(p) weighted.mean(p[rows, cols], rep(n[cols], each = S)))
  data <- t(fit(error(1:S, 1:L)))
  stars <- t(sapply(1:R, function(r) fit(error(seeds[r, ], lemmas[r, ]))))
  at <- function(p, size) 1 - p[, "floor"] - p[, "a"] * (size / x[1])^(-p[, "b"])
  interval <- function(name, of) {
    say(case, name, "estimate"); value(of(data))
    ends <- quantile(of(stars), c(0.025, 0.975), type = 7)
    say(case, name, "low"); value(ends[1])
    say(case, name, "high"); value(ends[2])
  }
  for (name in colnames(data)) { say(case, name); value(data[, name]) }
  interval("exponent", function(p) p[, "b"])
  interval("asymptote", function(p) 1 - p[, "floor"])
  for (size in c(1200, 38400)) interval(paste("predicted", size, sep = "_"), function(p) at(p, size))
  interval("doubling", function(p) at(p, 2 * x[6]) - at(p, x[6]))
  rest <- error(1:S, 1:L) - 1 + sapply(x, function(size) at(data, size))
  say(case, "residual_sd"); value(sqrt(sum(rest^2) / (length(x) - 3)))
  say(case, "draws_without_floor"); value(sum(stars[, "floor"] == 0))
  say(case, "draws_that_do_not_rise"); value(sum(stars[, "a"] == 0))
  say(case, "draws_at_an_end"); value(sum(stars[, "a"] > 0 & stars[, "b"] %in% c(0.01, 10)))
}
study("law", 0.75 - 0.5 * u^(-0.6), 0.12)
study("slow", 0.9 - 0.75 * u^(-0.2), 0.08)
study("step", c(0.2, rep(0.6, 5)) + 0.002 * sin(5 * (1:6)), 0.1)
study("flat", 0.5 - 0.06 * u^(-0.5), 0.12)
cat("#", R.version.string, "\n")
