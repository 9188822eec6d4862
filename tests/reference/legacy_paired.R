# Prompt-mean tests and the two mixed models. Run in this folder: Rscript legacy_paired.R > legacy_paired.txt
suppressPackageStartupMessages(library(lmerTest))
all_rows <- read.table("legacy_data.txt", header = TRUE)
cat("set\tmetric\twhat\tstatistic\tdf\tp\n")
row <- function(set, metric, what, statistic, df, p)
  cat(sprintf("%s\t%s\t%s\t%.12g\t%.12g\t%.12g\n", set, metric, what, statistic, df, p))
for (set in c("balanced", "unbalanced")) {
  d <- if (set == "balanced") all_rows else all_rows[all_rows$kept == 1, ]
  raw <- c()
  for (metric in c("mtld", "length")) {
    d$y <- d[[metric]]
    m <- tapply(d$y, list(d$prompt, d$source), mean)
    difference <- m[, "PRNG"] - m[, "TRNG"]
    n <- length(difference)
    t <- t.test(difference)
    row(set, metric, "paired_t", t$statistic, t$parameter, t$p.value)
    row(set, metric, "interval", t$conf.int[1], t$conf.int[2], NA)
    w <- suppressWarnings(wilcox.test(difference, correct = FALSE))
    row(set, metric, "wilcoxon", w$statistic, NA, w$p.value)
    dz <- mean(difference) / sd(difference)
    row(set, metric, "d_z", dz, NA, NA)
    row(set, metric, "observed_power",
        power.t.test(n, delta = abs(dz), sd = 1, type = "paired", strict = TRUE)$power, NA, NA)
    row(set, metric, "mde",
        uniroot(function(x) power.t.test(n, delta = x, sd = 1, type = "paired", strict = TRUE)$power - 0.8,
                c(0.1, 5), tol = 1e-12)$root, NA, NA)
    row(set, metric, "percent", 100 * (mean(m[, "PRNG"]) / mean(m[, "TRNG"]) - 1), NA, NA)
    small <- anova(lmer(y ~ source + (1 | prompt), d))
    row(set, metric, "prompt_only", small$`F value`, small$DenDF, small$`Pr(>F)`)
    large <- suppressMessages(anova(lmer(y ~ source + (1 | prompt) + (1 | prompt:source), d)))
    row(set, metric, "maximal", large$`F value`, large$DenDF, large$`Pr(>F)`)
    raw <- c(raw, t$p.value)
  }
  adjusted <- p.adjust(raw, "BH")
  row(set, "mtld", "paired_t_bh", NA, NA, adjusted[1])
  row(set, "length", "paired_t_bh", NA, NA, adjusted[2])
}
# The example of the docstring.
d <- data.frame(y = rep(c(9, 2, 4, 1, 8, 9, 0, 0), each = 3) + c(-0.1, 0, 0.1), source = rep(rep(c("a", "b"), each = 3), 4),
                prompt = rep(1:4, each = 6))
small <- anova(lmer(y ~ source + (1 | prompt), d))
row("example", "m", "prompt_only", small$`F value`, small$DenDF, small$`Pr(>F)`)
large <- anova(lmer(y ~ source + (1 | prompt) + (1 | prompt:source), d))
row("example", "m", "maximal", large$`F value`, large$DenDF, large$`Pr(>F)`)
