"""Every limit, margin and floor by which answers and images are judged, once: for rules, report, dashboards and pages.

What belongs to one statistic of images alone stands in its row in `inputs`.
"""

# Times, in seconds: over which answers are judged, distributions are; for which a condition holds before it fires.
WINDOW, LONG, HOLD, INTERVAL = 300, 3600, 120, 30

# How many it takes to say anything.
LEAST_ANSWERS = 30  # in a window, for a share or a mean of it
LEAST_DETECTIONS = 300  # for a distance between distributions; windows of a baseline are joined until they hold as many
LEAST_WINDOWS = 8  # from which a baseline's limits are drawn
LEAST_REFUSALS = 10  # fewer are an accident
LEAST_EXPECTED = 40  # detections of a class, so that their absence tells: one object gives a dozen as it passes
LEAST_PRESENT = 0.9  # share of a baseline's windows that a class must have been in, for the same

# Empty answers: shares of a source's.
MOST_EMPTY = 0.8  # where no baseline says what is usual
MODEL_FLOOR = 0.5  # below this share no model is silenced, whatever its baseline
STREAM_FLOOR = 0.2  # the same for a stream
EXPLAINED = 0.5  # share of the empty ones that have a reason other than quiet, beyond which it is silence
QUIET_SOURCES = 3  # as many are no chance
PATIENCE = 12  # long windows for which fewer may be quiet: a road is closed for hours
QUIET_THROUGHOUT = 0.99  # share of these windows' evaluations that must have found it so

# Findings and reasons: shares of a source's answers, beyond which they fire.
NON_FINITE = 0.01
BLACK = 0.9
UNIT_RANGE = 0.5  # where blackness is one of values, and not of the camera
FROZEN = 0.5
MOSTLY_BLACK = 0.5  # where what stands still is darkness, and not the feed
SUPPRESSED = 0.3
CLASS_LEFT = 0.05  # of the detections of a class that were expected, below which it is silent

# Statistics of images.
MARGIN = 0.5  # of the distance between its limits, by which a statistic must be beyond them; see also its own margin
FLAT = 0.5  # of the lowest contrast of the baseline, below which a picture is flat, and not just darker

# Causes.
KNOWN = 0.1  # share of answers that a cause touches, from which on their statistics are its effect
LEAD = 1.5  # as often as the cause that leads another must be counted to take its place
DISAGREEMENT = 0.5  # share of a golden image's objects, beyond which two versions cannot both be right

# Serving.
VIOLATIONS = 0.05  # share of requests that contradict the contract
OVERLOADED = 0.05  # share of requests that are refused as overload, or late
RESTARTS = 3  # of a version's workers in a window
STUCK = 30  # seconds without an answer, of a version that has something to answer
OBJECTIVE = 1.0  # seconds within which requests are to be answered; an edge of their histogram
TARGET = 0.99  # share of them for which that is promised
# The SRE workbook's chapter 5, with the window for its five minutes: how many times faster than allowed errors come,
# the long and the short window in which they do.
FAST_BURNS = ((14.4, 12, 1),)
SLOW_BURNS = ((6, 72, 6), (1, 864, 72))
BURN_WINDOWS = sorted({windows for _, *both in FAST_BURNS + SLOW_BURNS for windows in both})

# Ages, in days.
STALE_DAYS = 30  # of a baseline
EXPIRY_DAYS = 14  # before a certificate ends
EXPIRY_PAGES = 7  # the part of them in which it pages: a seventh
