#!/usr/bin/env node
import { launch } from "./launch.mjs";

launch("runner/main.ts");
