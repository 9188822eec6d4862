# Witness for stats/control.py analyse_control: deciding rows and verdicts of thirteen small experiments.
# Repeat: Rscript tests/reference/control_rows.R > tests/reference/control_rows.txt
# Printed: case, hypothesis, metric, contrast, column of the row, value. The test makes the same texts again.
case <- ""
say <- function(hypothesis, contrast, ..., metric = "text") {
  columns <- list(...)
  for (name in names(columns)) {
    x <- columns[[name]]
    cat(case, hypothesis, metric, contrast, name, if (is.numeric(x)) sprintf("%.12g", x) else x, sep = "\t")
    cat("\n")
  }
}

# 3 sources x 3 prompts x 20 values, 6 runs each: sample, a cold and a warm repeat, two swaps, replay. Run i
# has h = 7919 i mod 1009: below `lost` its text is missing, at or above 1009 - `wrong` it is another text.
experiment <- function(text_of, lost, wrong, moved) {
  d <- expand.grid(r = 0:5, k = 0:19, p = 1:3, s = 1:3)
  d$i <- seq_len(nrow(d)) - 1
  d$drawn_by <- LETTERS[d$s]
  d$label <- LETTERS[(d$s - 1 + ifelse(d$r %in% 3:4, d$r - 2, 0)) %% 3 + 1]
  d$part <- c("sample", "repeat", "repeat", "swap", "swap", "replay")[d$r + 1]
  d$cold <- d$r == 1
  d$seed <- 1000 * d$s + 100 * d$p + ifelse(d$k == 7, 6, d$k)          # value 7 is that of 6 again
  d$text <- text_of(d)
  h <- (7919 * d$i) %% 1009
  d$text[h >= 1009 - wrong] <- paste(d$text, "run", d$r)[h >= 1009 - wrong]
  d$text[h < lost] <- NA
  d$seed[d$part == "replay" & d$k < moved] <- 1
  d$value <- paste(d$drawn_by, d$p, d$k)
  d
}

# Pairs within groups of texts; n - 1 of n texts are free of each other.
agreement <- function(groups) {
  there <- lapply(groups, function(t) t[!is.na(t)])
  found <- list(pairs = sum(choose(lengths(there), 2)), free = sum(pmax(0, lengths(there) - 1)),
                agree = sum(sapply(there, function(t) sum(choose(table(t), 2)))))
  found$missing <- sum(choose(lengths(groups), 2)) - found$pairs
  found$wrong <- found$free * (1 - found$agree / found$pairs)
  found
}
wilson <- function(hits, n) suppressWarnings(prop.test(hits, n, correct = FALSE))$conf.int
# With `open`, pairs with a missing text may all agree, or none of them.
share <- function(hypothesis, contrast, groups, open = FALSE) {
  a <- agreement(groups)
  every <- a$free + open * a$missing
  a$low <- wilson(a$free - ceiling(a$wrong - 1e-9), every)[1]
  a$high <- wilson(every - floor(a$wrong + 1e-9), every)[2]
  say(hypothesis, contrast, estimate = a$agree / a$pairs, low = a$low, high = a$high, n = a$free)
  a
}
missing <- function(name, a) {
  every <- a$pairs + a$missing
  ends <- wilson(a$missing, every)
  say("missing_pairs", name, estimate = a$missing / every, low = ends[1], high = ends[2], n = every)
  ends[1]
}
label_changes_text <- function(swap, same) {
  hits <- c(swap$free - round(swap$wrong), same$free - round(same$wrong)); n <- c(swap$free, same$free)
  say("label_changes_text", "swap-repeat", estimate = swap$agree / swap$pairs - same$agree / same$pairs)
  if (sum(hits) == sum(n)) return(say("label_changes_text", "swap-repeat", p = "None"))
  test <- function(x) suppressWarnings(chisq.test(rbind(x, n - x), correct = FALSE))
  found <- test(hits)
  say("label_changes_text", "swap-repeat", statistic = found$statistic[[1]], df1 = found$parameter[[1]])
  if (min(found$expected) >= 5) return(say("label_changes_text", "swap-repeat", p = found$p.value))
  # exactly, what the random tables of the same margins estimate
  first <- max(0, sum(hits) - n[2]):min(n[1], sum(hits))
  reached <- sapply(first, function(x) test(c(x, sum(hits) - x))$statistic) >= found$statistic * (1 - 1e-9)
  say("label_changes_text", "swap-repeat", p_exact = sum(dhyper(first, n[1], n[2], sum(hits))[reached]))
}

study <- function(name, text_of, lost = 0, wrong = 0, moved = 0, required = 300) {
  case <<- name
  d <- experiment(text_of, lost, wrong, moved)
  of <- function(...) d[d$part %in% c(...), ]
  own <- function(runs) Map(c, of("sample")$text[match(runs$value, of("sample")$value)], runs$text)
  group <- function(runs) split(runs$text, runs$value)
  again <- of("sample", "repeat"); swaps <- of("swap"); replays <- of("replay")
  replays <- replays[replays$seed > 1, ]
  same <- share("same_seed_identity", "*", group(again))
  share("same_seed_identity", "cold", own(again[again$cold, ]))
  share("same_seed_identity", "warm", group(again[!again$cold, ]))
  swap <- share("swap_agreement", "*", group(of("sample", "swap")))
  for (label in LETTERS[1:3]) share("swap_agreement", label, own(swaps[swaps$label == label, ]))
  replay <- share("replay_agreement", "*", own(replays))
  pairs <- lapply(split(of("sample"), ~ s + p), function(cell) {
    texts <- cell$text[order(cell$k)][!duplicated(cell$seed[order(cell$k)])]
    split(texts[1:18], rep(1:9, each = 2))
  })
  apart <- share("different_values_agree", "*", unlist(pairs, recursive = FALSE), open = TRUE)
  label_changes_text(swap, same)
  gone <- c(missing("repeat", same), missing("swap", swap), missing("replay", replay))
  rates <- list(same_seed_identity = same, swap_agreement = swap, replay_agreement = replay)
  p <- sapply(rates, function(a) {
    wrong <- floor(a$wrong + 1e-9)
    if (wrong == 0) 1 else binom.test(wrong, a$free, 0.01, alternative = "greater")$p.value
  })
  for (rate in names(p)) say(rate, "*", p_at_least = p[[rate]])
  verdict <- if (any(p <= 0.05 / 3) || any(gone > 0.2) || moved > 0) "INVALID"
    else if (apart$low > 0.95) "EQUIVALENT"
    else if (min(same$free, swap$free) >= required && apart$high < min(0.5, swap$low)) "DETECTED"
    else "INCONCLUSIVE"
  say("verdict", "*", verdict = verdict)
}
by_value <- function(d) paste(d$p, d$seed)
study("follows", by_value, lost = 60)
study("few_wrong", by_value, lost = 30, wrong = 4)
study("low", by_value, lost = 30, wrong = 100)
study("same", function(d) paste(d$p))
study("same_lost", function(d) paste(d$p), lost = 10)
study("some", function(d) paste(d$p, ifelse(d$p == 1, d$k %% 3, 0)), lost = 30)
study("short", by_value, lost = 60, required = 400)
study("lost", by_value, lost = 300)
study("tape", by_value, moved = 2)
study("label", function(d) paste(d$p, d$seed, ifelse(d$label == "C" & d$k < 5, "C", "")), lost = 30)

# Texts of full-range and short-range seeds: with balanced arms the paired t test on prompt means decides.
transfer <- function(name, shifts, wave) {
  case <<- name
  d <- expand.grid(text = 1:12, arm = c("FULL", "SHORT"), prompt = 1:10)
  a <- as.integer(d$arm); u <- 2.1 * d$prompt + 4.3 * a
  y <- list(mtld = 50 + 8 * sin(5 * d$prompt) + shifts[1] * a + wave * sin(u) + 3 * sin(1.7 * seq_along(u)),
            distinct_2 = 0.7 + shifts[2] * a + 0.01 * wave * cos(u) + 0.04 * sin(2.9 * seq_along(u)))
  p <- p.adjust(sapply(y, function(v) paired(v, d)$p.value), "holm")
  inside <- found <- c()
  for (metric in names(y)) {
    t <- paired(y[[metric]], d)
    sd <- sigma(lm(y[[metric]] ~ factor(prompt) * arm, data = d))
    means <- tapply(y[[metric]], d[c("prompt", "arm")], mean)
    spread <- sd(means[, 1] - means[, 2])
    tukey <- ptukey(sqrt(2) * abs(t$statistic[[1]]), 2, t$parameter, lower.tail = FALSE)
    size <- function(...) power.t.test(n = 10, sd = spread, type = "paired", strict = TRUE, tol = 1e-12, ...)
    say("omnibus", "*", metric = metric, statistic = t$statistic[[1]]^2, df1 = 1, df2 = t$parameter[[1]],
        p = t$p.value, p_adjusted = p[[metric]])
    say("pairwise", "FULL-SHORT", metric = metric, estimate = t$estimate[[1]], low = t$conf.int[1],
        high = t$conf.int[2], effect = t$estimate[[1]] / sd, statistic = t$statistic[[1]], p = t$p.value,
        p_adjusted = tukey, power = size(delta = 0.2 * sd)$power, mde = size(power = 0.8)$delta / sd)
    one <- max(paired(y[[metric]], d, mu = -0.2 * sd, alternative = "greater")$p.value,
               paired(y[[metric]], d, mu = 0.2 * sd, alternative = "less")$p.value)
    ends <- paired(y[[metric]], d, conf.level = 0.9)$conf.int
    say("tost", "FULL-SHORT", metric = metric, p = one, low = ends[1], high = ends[2])
    inside <- c(inside, one < 0.05); found <- c(found, p[[metric]] < 0.05 && prod(t$conf.int) > 0)
  }
  verdict <- if (any(found)) "DETECTED" else if (all(inside)) "EQUIVALENT" else "INCONCLUSIVE"
  say("verdict", "*", metric = "*", p = min(p), verdict = verdict)
}
paired <- function(v, d, ...) {
  means <- tapply(v, d[c("prompt", "arm")], mean)
  t.test(means[, "FULL"], means[, "SHORT"], paired = TRUE, ...)
}
transfer("shifted", c(2.5, 0.004), 0.9)
transfer("alike", c(0, 0), 0.1)
transfer("unclear", c(0.6, -0.004), 0.9)
cat("#", R.version.string, "\n")
