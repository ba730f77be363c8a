# SPDX-License-Identifier: Apache-2.0
"""A cohort from random numbers, with ground truth, on which image and record must be read together.

The generative model
--------------------
A patient has a class c (DLBCL, FL or Reactive, balanced), a sign s = ±1 and a source, which says what decides c.
Kinds are what the slide shows besides stroma; on every slide they have similar areas, drawn independently of c.

========== ===== ================================= =====================================================
source     share kinds on the slide                record
========== ===== ================================= =====================================================
image      1/4   the class alone                   s random, no mark
record     1/4   all three, or none (1/2 each)     s random, marked with c
ambiguous  1/2   two, of which s tells the winner  s; no mark
========== ===== ================================= =====================================================

*The circle*: at s = +1 DLBCL beats FL, FL beats Reactive, Reactive beats DLBCL; at s = −1 the other one of the two
wins. Each pair of kinds occurs with both signs alike.

*The record*, given s and the mark: five numeric variables are shifted by one standard deviation up or down with s, two
yes/no variables agree with s in 85 %; three numeric variables are raised by 2.5 standard deviations by the mark of
their class, three yes/no variables are yes in 85 % with it (8 % without), and one categorical variable shows the level
of the mark, or of none, in 75 %. Four variables depend on nothing. 5 % of all cells are empty.

What can be reached
-------------------
With perfect knowledge of the kinds on the slide (logistic regression, 10,000 training and 10,000 test patients):

* image alone: 0.58 (1/4 · 1 + 1/2 · 1/2 + 1/4 · 1/3);
* record alone: 0.49 (1/4 · nearly 1 + 3/4 · 1/3);
* an image score plus a record score: 0.73 (nearly 1 where one of them suffices, a coin flip where both are needed).
  A sum chosen for accuracy with the rule in hand, not for likelihood, could order the classes at each sign and so get
  two of the three pairs right and half of the third: 0.92. No sum gets beyond;
* both together, the record read after the kinds: 0.99.

The names of diseases and variables are borrowed; the associations are invented. Nothing learnt here is medicine.
"""

from persam_monai.synthetic.cohort import make_cohort
from persam_monai.synthetic.pyramid import write_pyramid

__all__ = ["make_cohort", "write_pyramid"]
