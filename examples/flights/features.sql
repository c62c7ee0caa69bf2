-- What is known of a flight before it departs: the timetable, and the weather at its origin up to that hour.
-- Never an actual time, a delay or a cancellation, of this flight or of another.
WITH timetable AS (
  SELECT *,
         make_date(year, month, day) AS date,
         make_timestamp(year, month, day, hour, minute, 0) AS scheduled,
         concat(carrier, flight) AS number,
         pmod(floor(sched_arr_time / 100) * 60 + sched_arr_time % 100 - hour * 60 - minute, 1440) AS block_minutes
  FROM flights
),

planned AS (
  SELECT *,
         block_minutes - avg(block_minutes) OVER (PARTITION BY origin, dest) AS block_beyond_route,
         -- how much else happens
         count(*) OVER (PARTITION BY time_hour) AS all_airports_hour,
         count(*) OVER (PARTITION BY origin, date) AS origin_day,
         count(*) OVER (PARTITION BY origin, date ORDER BY scheduled) AS origin_so_far,
         count(*) OVER (PARTITION BY origin ORDER BY scheduled
                        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS origin_hour_before,
         count(*) OVER (PARTITION BY origin ORDER BY scheduled
                        RANGE BETWEEN CURRENT ROW AND INTERVAL 1 HOUR FOLLOWING) AS origin_hour_after,
         count(*) OVER (PARTITION BY carrier, date) AS carrier_day,
         count(*) OVER (PARTITION BY carrier, origin ORDER BY scheduled
                        RANGE BETWEEN INTERVAL 1 HOUR PRECEDING AND CURRENT ROW) AS carrier_hour_before,
         count(*) OVER (PARTITION BY dest, date) AS dest_day,
         count(*) OVER (PARTITION BY dest ORDER BY scheduled
                        RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW) AS dest_3h_before,
         -- what the plane does that day
         count(*) OVER (PARTITION BY tailnum, date) AS plane_day,
         count(*) OVER plane AS plane_so_far,
         lag(struct(scheduled, block_minutes, origin, dest, time_hour)) OVER plane AS before
  FROM timetable
  WINDOW plane AS (PARTITION BY tailnum, date ORDER BY scheduled, number)
),

observed AS (
  SELECT *,
         wind_speed * sin(radians(wind_dir)) AS wind_east, wind_speed * cos(radians(wind_dir)) AS wind_north,
         sum(precip) OVER h3 AS precip_3h, sum(precip) OVER h6 AS precip_6h, sum(precip) OVER h12 AS precip_12h,
         min(visib) OVER h3 AS visib_min_3h, max(wind_speed) OVER h6 AS wind_max_6h,
         pressure - first(pressure) OVER h3 AS pressure_3h, pressure - first(pressure) OVER h6 AS pressure_6h,
         pressure - first(pressure) OVER h24 AS pressure_24h, temp - first(temp) OVER h24 AS temp_24h
  FROM weather
  WINDOW h3 AS (PARTITION BY origin ORDER BY time_hour RANGE BETWEEN INTERVAL 3 HOURS PRECEDING AND CURRENT ROW),
         h6 AS (PARTITION BY origin ORDER BY time_hour RANGE BETWEEN INTERVAL 6 HOURS PRECEDING AND CURRENT ROW),
         h12 AS (PARTITION BY origin ORDER BY time_hour RANGE BETWEEN INTERVAL 12 HOURS PRECEDING AND CURRENT ROW),
         h24 AS (PARTITION BY origin ORDER BY time_hour RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW)
),

holidays AS (
  SELECT * FROM VALUES (DATE'2013-01-01'), (DATE'2013-05-27'), (DATE'2013-07-04'), (DATE'2013-09-02'),
                       (DATE'2013-11-28'), (DATE'2013-12-25'), (DATE'2014-01-01') AS (day)
)

SELECT s.time_hour, s.carrier, s.flight, s.date, CAST(s.arr_delay > 15 AS INT) AS late,
       s.scheduled, s.month, s.number, s.origin, s.dest, s.distance, s.block_minutes, s.block_beyond_route,
       coalesce(CAST(datediff(s.date, holidays.day) AS STRING), 'far') AS holiday,
       s.all_airports_hour, s.origin_day, s.origin_so_far, s.origin_hour_before, s.origin_hour_after, s.carrier_day,
       s.carrier_hour_before, s.dest_day, s.dest_3h_before, s.plane_day, s.plane_so_far,
       -- the turn: what the plane has to do between its last departure from New York and this one
       s.before.dest AS turn_dest,
       timestampdiff(MINUTE, s.before.scheduled, s.scheduled) AS turn_minutes,
       timestampdiff(MINUTE, s.before.scheduled, s.scheduled) - 2 * s.before.block_minutes AS turn_slack,
       b.precip_3h AS turn_precip_3h, b.precip_12h AS turn_precip_12h, b.visib_min_3h AS turn_visib_min_3h,
       b.wind_max_6h AS turn_wind_max_6h,
       s.year - p.year AS plane_age, p.seats,
       w.temp, w.dewp, w.humid, w.wind_speed, w.wind_east, w.wind_north, w.wind_gust, w.precip, w.pressure, w.visib,
       w.precip_3h, w.precip_6h, w.precip_12h, w.visib_min_3h, w.wind_max_6h,
       w.pressure_3h, w.pressure_6h, w.pressure_24h, w.temp_24h
FROM planned s
LEFT JOIN observed w ON w.origin = s.origin AND w.time_hour = s.time_hour
LEFT JOIN observed b ON b.origin = s.before.origin AND b.time_hour = s.before.time_hour
LEFT JOIN planes p ON p.tailnum = s.tailnum
LEFT JOIN holidays ON abs(datediff(s.date, holidays.day)) <= 3
