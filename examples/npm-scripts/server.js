if (!process.env.API_KEY) throw new Error("no API_KEY");
console.log(`serving as ${process.env.POSTGRES_USER}`);
