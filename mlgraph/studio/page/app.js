// Puts the page together.

import { poll } from "./api.js";
import * as run from "./run.js";
import * as curve from "./curve.js";
import * as network from "./network.js";
import * as side from "./side.js";

run.begin(document.getElementById("run"));
curve.begin(document.getElementById("curve"));
network.begin(document.getElementById("network"));
side.begin(document.getElementById("side"));
poll();
