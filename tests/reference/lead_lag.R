# Lead and lag: ccf of lm's residuals, z averaged and tested by t.test; alarms counted step by step.
# Run in this folder: Rscript lead_lag.R > lead_lag.txt
# Three seeds of 40 probes from sine values; alarms on 60 steps, window at steps 40 to 47 (from 0).
out <- function(name, value) cat(sprintf("%s\t%.12g\n", name, value))
n <- 40; t <- 0:(n - 1); K <- 4
z <- sapply(1:3, function(s) {
  x <- sin(0.9 * t * s) + 0.05 * t + cos(t^2); y <- sin(0.9 * (t - 2) * s) - 0.03 * t + sin(t^2 + s)
  found <- ccf(resid(lm(y ~ t)), resid(lm(x ~ t)), lag.max = K, plot = FALSE)
  for (k in -K:K) out(sprintf("r_%d_%d", s, k), found$acf[k + K + 1])
  atanh(as.vector(found$acf))
})
for (k in -K:K) {
  test <- t.test(z[k + K + 1, ])
  out(sprintf("mean_%d", k), tanh(test$estimate)); out(sprintf("p_%d", k), test$p.value)
}
holm <- p.adjust(sapply(-K:K, function(k) t.test(z[k + K + 1, ])$p.value), "holm")
for (k in -K:K) out(sprintf("holm_%d", k), holm[k + K + 1])
for (s in 1:2) {
  step <- 0:59; v <- sin(2.3 * step * s) + 1.5 * (step >= 40 & step < 48 & step %% 2 == 0); v[step %% 7 == 3] <- NA
  clean <- !(step >= 40 & step < 48)
  z <- rep(NA, 60)
  for (i in 1:60) {
    before <- tail(which(clean & !is.na(v) & seq_along(v) < i), 12)
    if (!is.na(v[i]) && length(before) >= 5) z[i] <- (v[i] - mean(v[before])) / sd(v[before])
  }
  judged <- !is.na(z); alarm <- judged & z > 1.2; event <- !clean & judged
  out(paste0("z_", s), sum(z, na.rm = TRUE))
  out(paste0("precision_", s), sum(alarm & event) / sum(alarm)); out(paste0("recall_", s), sum(alarm & event) / sum(event))
  out(paste0("base_rate_", s), sum(event) / sum(judged))
}
