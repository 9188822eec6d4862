# Witness for stats/interactions.py: source x domain by lmerTest and by aov's error strata, the covariate's
# slope by lm, the adjusted test by lmerTest, and the full mixed analysis of covariance for comparison.
# Repeat: Rscript tests/reference/secondary_interactions.R > tests/reference/secondary_interactions.txt
# Values from sines so that the test can make them again: texts run fastest, then source, then prompt.
suppressMessages({library(lme4); library(lmerTest)})
say <- function(case, key, ...) cat(case, key, sprintf("%.12g", c(...)), "\n")
domains <- list(c(1, 1, 2, 2, 3, 3, 4, 4), c(1, 1, 1, 2, 2, 3), rep(1:9, c(4, 4, 4, 4, 4, 3, 3, 2, 2)))
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.1, rhoend = 1e-11, maxfun = 1e5))
for (case in 1:3) {
  P <- length(domains[[case]]); k <- c(6, 5, 10)[case]
  d <- expand.grid(sample = 1:k, s = 1:3, p = 1:P)
  i <- seq_len(nrow(d)); dom <- domains[[case]][d$p]
  d$x <- 60 + 15 * sin(0.9 * i^2) + 3 * sin(2 * d$p)
  d$y <- 2 * sin(3 * d$p) + 0.8 * sin(5 * (3 * d$p + d$s)^2) + 1.4 * sin(0.7 * i^2) + 0.5 * sin(4 * (dom + 7 * d$s)) + 0.03 * d$x
  d$prompt <- factor(d$p); d$source <- factor(letters[d$s]); d$domain <- factor(dom)
  m <- suppressMessages(lmer(y ~ source * domain + (1 | prompt) + (1 | prompt:source), d, control = control))
  a <- anova(m, type = "III")["source:domain", ]
  say(case, "lmer", a$`F value`, a$NumDF, a$DenDF, a$`Pr(>F)`)
  cells <- aggregate(y ~ source + prompt + domain, d, mean)
  s <- summary(aov(y ~ source * domain + Error(prompt/source), cells))[["Error: prompt:source"]][[1]]
  say(case, "aov", s["source:domain", "F value"], s["source:domain", "Df"], s["Residuals", "Df"], s["source:domain", "Pr(>F)"])
  l <- lm(y ~ interaction(prompt, source) + x, d); slope <- summary(l)$coefficients["x", ]
  say(case, "slope", slope[1], slope[2], l$df.residual, slope[4])
  d$adjusted <- d$y - slope[1] * (d$x - mean(d$x))
  b <- anova(suppressMessages(lmer(adjusted ~ source + (1 | prompt) + (1 | prompt:source), d, control = control)))
  say(case, "adjusted", b$`F value`, b$NumDF, b$DenDF, b$`Pr(>F)`)
  f <- anova(suppressMessages(lmer(y ~ source + x + (1 | prompt) + (1 | prompt:source), d, control = control)))["source", ]
  say(case, "ancova", f$`F value`, f$NumDF, f$DenDF, f$`Pr(>F)`)
}
cat("#", R.version.string, "lmerTest", as.character(packageVersion("lmerTest")), "\n")
