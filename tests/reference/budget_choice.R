# Witness for stats/preservation.py choose_budget: one-standard-error rule, error over documents.
# Repeat: Rscript tests/reference/budget_choice.R > tests/reference/budget_choice.txt
# Data: sine values, 4 languages x 24 sentences of 8 documents; the test makes them again. Means and the
# clustered standard error from lm and sandwich::vcovCL, the rule itself from caret::oneSE.
invisible(Sys.setenv(TZ = "UTC"))
say <- function(name, x) cat(name, "\t", sprintf("%.12g", x), "\n", sep = "")
choose <- function(case, document, percents, levels, phase = percents) {
  S <- length(document)
  noise <- function(b) outer(1:4, 1:S, function(l, s)
    0.4 * sin(2.2 * l + 0.3 * b) + sin(1.1 * document[s] + 0.2 * b) + 0.5 * sin(1.7 * l * s + b))
  change <- lapply(seq_along(percents), function(b) data.frame(
    bits = colMeans(levels[b] + noise(phase[b])), document = document))
  fits <- lapply(change, function(d) lm(bits ~ 1, data = d))
  se <- mapply(function(f, d) sqrt(sandwich::vcovCL(f, cluster = d$document, type = "HC0", cadjust = TRUE)),
               fits, change)
  D <- length(unique(document))
  means <- sapply(fits, function(f) coef(f)[[1]])
  table <- data.frame(percent = percents, change = means, changeSD = se * sqrt(D))
  for (b in seq_along(percents)) say(paste0(case, "_mean_", percents[b]), table$change[b])
  ascending <- table[order(table$percent), ]                         # caret: simplest first
  best <- which.min(ascending$change)
  say(paste0(case, "_best"), ascending$percent[best])
  say(paste0(case, "_se"), ascending$changeSD[best] / sqrt(D))
  say(paste0(case, "_documents"), D)
  chosen <- caret::oneSE(ascending, "change", num = D, maximize = FALSE)
  say(paste0(case, "_percent"), ascending$percent[chosen])
}
unequal <- rep(1:8, c(3, 1, 4, 2, 5, 2, 3, 4))
choose("unequal", unequal, c(20, 5, 1, 10, 40), c(1.0, 1.25, 2.5, 1.12, 1.05))
choose("smaller_out", unequal, c(1, 5, 10, 20), c(2.4, 1.9, 1.7, 1.0))
choose("single", 1:24, c(5, 10, 20), c(1.3, 1.15, 1.1))
choose("worse_between", unequal, c(5, 10, 20), c(1.1, 1.9, 1.0), c(1, 1, 1))
choose("tie", unequal, c(20, 10, 5), c(1, 1, 1.6), c(1, 1, 1))
cat("#", R.version.string, "sandwich", as.character(packageVersion("sandwich")), "caret",
    as.character(packageVersion("caret")), "\n")
