# Witness for stats/regime_deltas.py: t.test, p.adjust.
# Repeat: Rscript tests/reference/regime_deltas.R > tests/reference/regime_deltas.txt
# Data: sine values, so that the test can make them again: seeds 0-3, channels 1-2, 60 steps (from 0).
# Windows (first step, step after the last): fog 10-15 and 40-44, heat 25-30. 6 steps before are the reference.
say <- function(name, value) cat(name, "\t", sprintf("%.15g", value), "\n", sep = "")
run <- function(s, c) sapply(0:59, function(t) 0.02 * t * c + sin(2.3 * t * c + 1.7 * s) + 0.1 * s)
twin <- function(s, c, start, end) sapply(start:(end - 1), function(t) cos(1.1 * t * c + 0.9 * s) - 0.2 * c)
windows <- list(fog = list(c(10, 15), c(40, 44)), heat = list(c(25, 30)))
for (against in c("before", "twin")) {
  p <- NULL
  for (regime in names(windows)) for (c in 1:2) {
    d <- NULL; sds <- NULL
    for (s in 0:3) {
      y <- run(s, c)
      parts <- sapply(windows[[regime]], function(w) {
        inside <- y[(w[1] + 1):w[2]]
        other <- if (against == "before") y[(w[1] - 5):w[1]] else twin(s, c, w[1], w[2])
        c(mean(inside) - mean(other), sd(other))
      })
      d <- c(d, mean(parts[1, ])); sds <- c(sds, mean(parts[2, ]))
    }
    found <- t.test(d); name <- paste(against, regime, c, sep = "_")
    say(paste0("estimate_", name), found$estimate)
    say(paste0("low_", name), found$conf.int[1]); say(paste0("high_", name), found$conf.int[2])
    say(paste0("t_", name), found$statistic)
    say(paste0("p_", name), found$p.value); say(paste0("effect_", name), found$estimate / mean(sds))
    p <- c(p, found$p.value)
  }
  holm <- p.adjust(p, method = "holm")
  for (i in 1:4) say(paste0("holm_", against, "_", i), holm[i])
}
