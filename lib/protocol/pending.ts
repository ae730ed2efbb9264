/** Reason of a run that has just become pending: nobody needs to do anything. */
export const OFFER_UNDER_WAY = "a runner matches; the offer is on its way, or waits out a cooldown after a refusal";

/** How the reasons begin that say why a runner refused a run. */
export const REFUSED_BY = "refused by ";
