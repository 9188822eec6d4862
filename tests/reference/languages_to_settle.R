# Languages a tier (or in all) that tell either truth at alpha with power .8: a two-sided t test of a difference
# as large as the margin, and the equivalence test where nothing differs, whose chance is integrated over the
# chi distribution of the standard error. R alone: Rscript languages_to_settle.R > languages_to_settle.txt
equivalent <- function(se, margin, df, alpha) {
  t <- qt(1 - alpha, df)
  inside <- function(s) {
    room <- pmax(0, margin / se - t * s)
    density <- 2 * df * s * dchisq(df * s^2, df)
    (2 * pnorm(room) - 1) * density
  }
  integrate(inside, 0, margin / se / t, rel.tol = 1e-10)$value
}
detected <- function(se, margin, df, alpha) {
  t <- qt(1 - alpha / 2, df)
  pt(t, df, ncp = margin / se, lower.tail = FALSE) + pt(-t, df, ncp = margin / se)
}
settle <- function(sd, margin, tiers, alpha) {
  n <- if (tiers == 2) 4 else 6
  repeat {
    se <- sd * sqrt(tiers / n)
    df <- tiers * (n - 1)
    if (min(detected(se, margin, df, alpha), equivalent(se, margin, df, alpha)) >= 0.8) return(n)
    n <- n + 1
  }
}
for (tiers in 1:2) for (alpha in c(0.05, 0.01)) for (sd in c(0.2, 0.3, 0.6, 1, 2.5)) {
  cat(tiers, alpha, sd, settle(sd, 0.5, tiers, alpha), "\n")
}
