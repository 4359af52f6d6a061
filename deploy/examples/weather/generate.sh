#!/bin/sh
# Writes weather.yaml: `sh generate.sh > weather.yaml`. The tasks of a month are the same for every station
# and month, so they are written out here; a `matrix` in the specification itself comes later.
set -eu

head_of_file() {
    cat <<'YAML'
# Three weather stations, one gateway each: what was a usual month, which days stood out, which readings are
# missing. Written by generate.sh; change that file and not this one. README.md says how to run it.
name: weather
description: Three stations by calendar month
labels: {example: weather}

params:
  seattle: {default: /srv/weather/seattle-temps.csv}     # hourly, 2010, on the gateway with station=seattle
  sf: {default: /srv/weather/sf-temps.csv}               # hourly, 2010, on the gateway with station=sf
  daily: {default: /srv/weather/seattle-weather.csv}     # daily, 2012-2015, on the gateway with station=daily
  limit: {type: number, default: 1.6}                    # standard deviations that make a day an anomaly
  pace: {type: number, default: 0}                       # seconds that each step rests first, to be watched

defaults:
  env: {PACE: "${params.pace}", LC_ALL: C}
  timeout: 1m
  retry: {initial_interval: 1s}

tasks:
YAML
}

# What the steps do, under the first task that does it; all others name it by an alias.
extract() {
    cat <<'YAML'
    shell: &extract |
      # The rows of one month, columns as the station has them.
      set -eu
      sleep "$PACE"
      awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) if ($i == "date") date = i; print; next }
        substr($date, 6, 2) == ENVIRON["MONTH"]
      ' station.csv > month.csv
YAML
}

clean_hourly() {
    cat <<'YAML'
    shell: &clean-hourly |
      # Any order of columns, any stamp, Fahrenheit -> "DAY HOUR CELSIUS", in order; hours that are not there.
      set -eu
      sleep "$PACE"
      awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        {
          split($(at["date"]), part, "[/ :]")
          printf "%s-%s-%s %s %.2f\n", part[1], part[2], part[3], part[4], ($(at["temp"]) - 32) / 1.8
        }
      ' month.csv | sort > clean.txt
      awk -v month="$MONTH" '
        function days(y, m) {
          if (m == 2) return 28 + (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0))
          return 30 + (m + int(m / 8)) % 2
        }
        { seen[$1 " " $2] = 1; year = substr($1, 1, 4) }
        END {
          for (d = 1; d <= days(year, month); d++)
            for (h = 0; h < 24; h++) {
              stamp = sprintf("%s-%s-%02d %02d", year, month, d, h)
              if (!(stamp in seen)) print stamp ":00"
            }
        }
      ' clean.txt > missing.txt
YAML
}

clean_daily() {
    cat <<'YAML'
    shell: &clean-daily |
      # Lowest and highest of a day -> "DAY low|high CELSIUS", in order; days that are not there.
      set -eu
      sleep "$PACE"
      awk -F, '
        NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; next }
        {
          day = $(at["date"]); gsub("/", "-", day)
          printf "%s low %.2f\n%s high %.2f\n", day, $(at["temp_min"]), day, $(at["temp_max"])
        }
      ' month.csv | sort > clean.txt
      awk -v month="$MONTH" '
        function days(y, m) {
          if (m == 2) return 28 + (y % 4 == 0 && (y % 100 != 0 || y % 400 == 0))
          return 30 + (m + int(m / 8)) % 2
        }
        { seen[$1] = 1; year = substr($1, 1, 4); if (!first) first = year }
        END {
          for (y = first; y <= year; y++)
            for (d = 1; d <= days(y, month); d++) {
              stamp = sprintf("%s-%s-%02d", y, month, d)
              if (!(stamp in seen)) print stamp
            }
        }
      ' clean.txt > missing.txt
YAML
}

stats() {
    cat <<'YAML'
    shell: &stats |
      # Days, readings, mean of the days' means, mean of the days' ranges, lowest, highest, standard deviation
      # of the days' means.
      set -eu
      sleep "$PACE"
      awk '
        function close_day() {
          if (!readings) return
          mean = sum / readings
          days++; means += mean; squares += mean * mean; ranges += high - low
          readings = sum = 0
        }
        $1 != day { close_day(); day = $1 }
        {
          if (!readings || $3 < low) low = $3
          if (!readings || $3 > high) high = $3
          if (!all || $3 < lowest) lowest = $3
          if (!all || $3 > highest) highest = $3
          readings++; all++; sum += $3
        }
        END {
          close_day()
          mean = means / days
          variance = squares / days - mean * mean
          sd = variance > 0 ? sqrt(variance) : 0
          printf "%d %d %.4f %.4f %.2f %.2f %.4f\n", days, all, mean, ranges / days, lowest, highest, sd
        }
      ' clean.txt > stats.txt
YAML
}

anomalies() {
    cat <<'YAML'
    shell: &anomalies |
      # Days whose mean is further from the month's than LIMIT standard deviations; the month's own summary.
      set -eu
      sleep "$PACE"
      awk -v limit="$LIMIT" '
        function close_day() {
          if (!readings) return
          off = (sum / readings - mean) / sd
          if (off > limit || off < -limit) printf "anomaly %s %.2f %+.2f\n", day, sum / readings, off
          readings = sum = 0
        }
        NR == 1 { mean = $3; sd = $7 > 0 ? $7 : 1; next }
        $1 != day { close_day(); day = $1 }
        { readings++; sum += $3 }
        END { close_day() }
      ' stats.txt clean.txt > found.txt
      sed 's/^/missing /' missing.txt >> found.txt
      {
        printf 'month %s ' "$MONTH"
        tr '\n' ' ' < stats.txt
        grep -c '^anomaly' found.txt || true
        cat found.txt
      } > "$MONTH.txt"
YAML
}

report() {
    cat <<'YAML'
    shell: &report |
      # One station: a line a month, then what stood out and what is missing.
      set -eu
      sleep "$PACE"
      {
        printf 'station %s\n' "$STATION"
        echo '# month, days, readings, mean, daily range, lowest, highest, deviation, anomaly days'
        cat ??.txt | grep '^month'
        cat ??.txt | grep '^anomaly' || true
        cat ??.txt | grep '^missing' || true
      } > "$REPORT"
YAML
}

compare() {
    cat <<'YAML'
    shell: |
      # The stations side by side by calendar month; `driftless task logs RUN comparison` shows it, too.
      set -eu
      sleep "$PACE"
      awk '
        $1 == "station" { n++; name[n] = $2 " " $3 }
        $1 == "month" { mean[n, $2] = $5; range[n, $2] = $6; odd[n, $2] = $NF; days[n] += $NF }
        $1 == "missing" { gaps[n] = gaps[n] "  " $2 (NF > 2 ? " " $3 : "") }
        END {
          print "Air temperature by calendar month: mean and daily range in Celsius, days that stood out"
          print ""
          printf "      "
          for (i = 1; i <= n; i++) printf "%25s ", name[i]
          printf "\nmonth "
          for (i = 1; i <= n; i++) printf "%9s %7s %7s ", "mean", "range", "days"
          print ""
          for (m = 1; m <= 12; m++) {
            key = sprintf("%02d", m)
            printf "%-6s", key
            for (i = 1; i <= n; i++) {
              printf "%9.1f %7.1f %7d ", mean[i, key], range[i, key], odd[i, key]
              year[i] += mean[i, key] / 12
            }
            print ""
          }
          printf "year  "
          for (i = 1; i <= n; i++) printf "%9.1f %7s %7d ", year[i], "", days[i]
          print "\n\nReadings that are missing, as found:"
          for (i = 1; i <= n; i++) printf "  %-18s%s\n", name[i], gaps[i] == "" ? "  none" : gaps[i]
        }
      ' seattle.txt sf.txt daily.txt | sed 's/ *$//' | tee comparison.txt
YAML
}

# The body of a step the first time, its alias afterwards.
done_once=
shell_of() { # step function
    case " $done_once " in
        *" $1 "*) printf '    shell: *%s\n' "$(printf %s "$1" | tr _ -)" ;;
        *) done_once="$done_once $1"; "$1" ;;
    esac
}

month_of() { # station month clean-function priority
    common="    priority: $4
    placement: {labels: {station: $1}}"
    id=$1-$2
    printf '  %s-extract:\n' "$id"; shell_of extract
    printf '    env: {MONTH: "%s"}\n' "$2"
    printf '    inputs: [{name: %s-station, path: station.csv, source: "file:${params.%s}"}]\n' "$1" "$1"
    printf '    outputs: [{name: %s-raw, path: month.csv}]\n%s\n' "$id" "$common"
    printf '  %s-clean:\n' "$id"; shell_of "$3"
    printf '    env: {MONTH: "%s"}\n    inputs: [%s-raw]\n' "$2" "$id"
    printf '    outputs: [{name: %s-clean, path: clean.txt}, {name: %s-missing, path: missing.txt}]\n%s\n' \
        "$id" "$id" "$common"
    printf '  %s-stats:\n' "$id"; shell_of stats
    printf '    inputs: [%s-clean]\n    outputs: [{name: %s-stats, path: stats.txt}]\n%s\n' "$id" "$id" "$common"
    printf '  %s-anomalies:\n' "$id"; shell_of anomalies
    printf '    env: {MONTH: "%s", LIMIT: "${params.limit}"}\n' "$2"
    printf '    inputs: [%s-clean, %s-missing, %s-stats]\n' "$id" "$id" "$id"
    printf '    outputs: [{name: %s, path: "%s.txt"}]\n%s\n' "$id" "$2" "$common"
}

station_of() { # station clean-function title
    printf '\n  # %s\n' "$3"
    priority=12
    months=
    for month in 01 02 03 04 05 06 07 08 09 10 11 12; do
        month_of "$1" "$month" "$2" "$priority"
        months="$months${months:+, }$1-$month"
        priority=$((priority - 1))
    done
    printf '  %s-report:\n' "$1"; shell_of report
    printf '    env: {STATION: "%s", REPORT: %s.txt}\n' "$3" "$1"
    printf '    inputs: [%s]\n' "$months"
    printf '    outputs: [{name: %s-report, path: %s.txt}]\n' "$1" "$1"
    printf '    placement: {labels: {station: %s}}\n' "$1"
}

head_of_file
station_of seattle clean_hourly 'Seattle 2010 hourly'
station_of sf clean_hourly 'San-Francisco 2010 hourly'
station_of daily clean_daily 'Seattle 2012-15 daily'
printf '\n  comparison:\n'
compare
printf '    inputs: [seattle-report, sf-report, daily-report]\n'
printf '    outputs: [comparison.txt]\n'
