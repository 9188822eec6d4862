# Witness for stats/mixed.py and stats/contrasts.py: lme4, lmerTest (Satterthwaite), pbkrtest (Kenward-Roger)
# and emmeans (Tukey). Repeat: Rscript tests/reference/mixed_lmertest.R > tests/reference/mixed_lmertest.txt
# The data come from the Park-Miller generator, which tests/test_mixed.py repeats exactly.
suppressMessages({library(lme4); library(lmerTest); library(pbkrtest); library(emmeans)})
options(warn = 1)

park_miller <- function(n, state) {
  u <- numeric(n)
  for (i in seq_len(n)) { state <- (16807 * state) %% 2147483647; u[i] <- state / 2147483647 }
  u
}

# One row a text, the sample running fastest, then stream, source, prompt. `drop`: share of rows left out.
make <- function(seed, P, S, T, k, sp, sps, sst, drop = 0, streams_of = rep(T, S)) {
  z <- qnorm(park_miller(P + P * S + S * T + 2 * P * S * T * k, seed))
  take <- function(m) { out <- z[seq_len(m)]; z <<- z[-seq_len(m)]; out }
  prompt_effect <- take(P) * sp
  ps_effect <- matrix(take(P * S), P, S, byrow = TRUE) * sps
  st_effect <- matrix(take(S * T), S, T, byrow = TRUE) * sst
  noise <- take(P * S * T * k)
  lose <- pnorm(take(P * S * T * k))
  d <- expand.grid(sample = 1:k, t = 1:T, s = 1:S, p = 1:P)
  d$y <- 10 + 0.1 * d$s + prompt_effect[d$p] + ps_effect[cbind(d$p, d$s)] + st_effect[cbind(d$s, d$t)] + noise
  d <- d[lose >= drop & d$t <= streams_of[d$s], ]
  d$prompt <- factor(d$p); d$source <- factor(letters[d$s]); d$stream <- factor(d$t)
  d$several <- as.numeric(streams_of[d$s] > 1)
  d
}

say <- function(name, key, ...) cat(name, key, sprintf("%.12g", c(...)), "\n")

report <- function(name, d, streams) {
  control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhobeg = 0.1, rhoend = 1e-11, maxfun = 1e5))
  form <- if (streams == "none") y ~ source + (1 | prompt) + (1 | prompt:source)
          else if (streams == "all") y ~ source + (1 | prompt) + (1 | prompt:source) + (1 | source:stream)
          else y ~ source + (1 | prompt) + (1 | prompt:source) + (0 + several | source:stream)
  m <- suppressMessages(lmer(form, d, REML = TRUE, control = control))
  v <- as.data.frame(VarCorr(m))
  of <- function(g) v$vcov[v$grp == g]
  say(name, "rows", nrow(d))
  say(name, "deviance", REMLcrit(m))
  say(name, "variances", sigma(m)^2, of("prompt"), of("prompt:source"), of("source:stream"))
  a <- anova(m, ddf = "Satterthwaite")
  say(name, "F", a[1, "F value"], a[1, "NumDF"], a[1, "DenDF"], a[1, "Pr(>F)"])
  k <- length(fixef(m))
  for (i in 1:(k - 1)) for (j in (i + 1):k) {
    L <- rep(0, k); if (i > 1) L[i] <- 1; L[j] <- -1
    c1 <- contest1D(m, L, ddf = "Satterthwaite", confint = TRUE)
    say(name, paste0("contrast_", letters[i], "-", letters[j]), c1$Estimate, c1$`Std. Error`, c1$df,
        c1$`t value`, c1$`Pr(>|t|)`, c1$lower, c1$upper)
  }
  e <- pairs(emmeans(m, "source", lmer.df = "satterthwaite", lmerTest.limit = 1e5))
  s <- summary(e, infer = TRUE, adjust = "tukey", level = 0.95)
  for (i in seq_len(nrow(s))) say(name, paste0("tukey_", gsub(" ", "", s$contrast[i])), s$p.value[i], s$lower.CL[i], s$upper.CL[i])
  if (nrow(d) < 1000) {
    kr <- suppressMessages(anova(m, ddf = "Kenward-Roger"))
    say(name, "KR", kr[1, "F value"], kr[1, "NumDF"], kr[1, "DenDF"], kr[1, "Pr(>F)"])
  }
}

report("balanced3", make(11, 10, 3, 1, 6, 1, 0.5, 0), "none")
report("unbalanced3", make(12, 10, 3, 1, 6, 1, 0.5, 0, drop = 0.2), "none")
report("balanced2", make(13, 12, 2, 1, 5, 2, 0.4, 0), "none")
report("unbalanced2", make(14, 12, 2, 1, 5, 2, 0.6, 0, drop = 0.3), "none")
report("streams3", make(15, 8, 3, 5, 4, 1, 0.5, 0.4), "all")
report("streams3_unbalanced", make(16, 8, 3, 5, 4, 1, 0.5, 0.4, drop = 0.25), "all")
report("streams2", make(17, 10, 2, 4, 3, 1, 0.5, 0.5), "all")
report("streams_of_one", make(18, 10, 3, 5, 3, 1, 0.5, 0.6, drop = 0.1, streams_of = c(5, 1, 5)), "some")
report("full", make(19, 30, 3, 5, 10, 1, 0.2, 0.15, drop = 0.02), "all")
report("zero", make(20, 12, 3, 1, 8, 1, 0, 0), "none")
report("zero_streams", make(23, 8, 3, 5, 4, 1, 0.4, 0), "all")
report("wide_prompts", make(41, 8, 3, 3, 3, 10, 0.3, 0.2, drop = 0.1), "all")
cat("# ", R.version.string, ", lme4 ", as.character(packageVersion("lme4")), ", lmerTest ",
    as.character(packageVersion("lmerTest")), ", pbkrtest ", as.character(packageVersion("pbkrtest")),
    ", emmeans ", as.character(packageVersion("emmeans")), "\n", sep = "")
