"""Why the model said it: exact tree SHAP, gradients, sampled coalitions, LIME."""
